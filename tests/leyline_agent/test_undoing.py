"""A commit's edits on the view before them, and what became of those nobody can lower."""

import pytest

from leyline_agent.adapter import Commit, WireEdit
from leyline_agent.directive import Mode, apply
from leyline_agent.lowering import Lowering
from leyline_agent.receipt import Reason
from leyline_agent.undoing import Held, Undone, lower_commit


class Words:
    """Renders a message as its words' hashes, with a mark in front of it."""

    def render(self, messages, tools=()):
        return [
            t for m in messages for t in (1, *(2 + hash(w) % 999 for w in m["content"].split()))
        ]


def says(*texts):
    return [{"role": "user", "content": text} for text in texts]


def commit(*edits, base_len=0):
    return Commit(session="s", base_version=1, version=2, base_len=base_len, edits=edits)


def held(messages):
    return Held(1, messages, Words().render(messages))


def test_the_view_before_edits_is_the_base_and_what_is_new():
    base = held(says("a", "b", "c"))
    edit = WireEdit(messages=(1, 2), count=1, mode=Mode.AMORTIZE, policy="p")
    undone = Undone.of(base, says("a", "stub", "c", "new"), commit(edit))
    assert undone.view == says("a", "b", "c", "new")
    assert [(e.start, e.end, e.replacement) for e in undone.edits] == [(1, 2, tuple(says("stub")))]
    assert not undone.unseen


def test_lowered_it_leads_from_the_tokens_held_to_the_prompt():
    base = held(says("a b c", "d e f", "g h"))
    edit = WireEdit(messages=(1, 2), count=0, mode=Mode.AMORTIZE)
    view = says("a b c", "g h", "i")
    _, lowering = lower_commit(base, view, (), commit(edit), Words())
    kept = apply(base.tokens, lowering.directives)
    assert [*kept, *lowering.tokens[len(kept) :]] == Words().render(view)
    assert lowering.appended == 2


@pytest.mark.parametrize(
    ("messages", "reason", "used"),
    [((5, 6), Reason.UNSEEN, Mode.AMORTIZE), ((2, 4), Reason.UNDECLARED, Mode.FORGET)],
)
def test_an_edit_of_what_was_never_seen_says_so(messages, reason, used):
    base = held(says("a", "b", "c"))
    count = 1
    edit = WireEdit(messages=messages, count=count, mode=Mode.AMORTIZE)
    undone = Undone.of(base, says("a", "b", "x", "y", "z", "w"), commit(edit))
    (one,) = undone.unseen
    assert one.receipt.reason is reason
    assert one.receipt.mode_used is used
    assert "version 1" in one.told(base)


def test_what_became_no_directive_keeps_its_place():
    base = held(says("a", "b", "c"))
    edits = (
        WireEdit(messages=(0, 1), count=1, mode=Mode.AMORTIZE),
        WireEdit(messages=(1, 2), count=1, mode=Mode.AMORTIZE, redact=True),
    )
    undone = Undone.of(base, says("a", "x", "c"), commit(*edits))
    lowering = Lowering((), (), 0, {0: Reason.NO_CHANGE, 1: Reason.UNSEEN})
    told = undone.without(lowering)
    assert [(at, redact, receipt.reason) for at, redact, receipt in told] == [
        (0, False, Reason.NO_CHANGE),
        (0, True, Reason.UNSEEN),
    ]
    assert told[1][2].mode_asked is Mode.FORGET


def test_only_the_messages_that_the_edits_start_from_count():
    base = held(says("a", "b", "c"))
    edit = WireEdit(messages=(2, 3), count=1)
    undone = Undone.of(base, says("a", "b", "x"), commit(edit, base_len=2))
    assert [one.reason for one in undone.unseen] == [Reason.UNSEEN]
