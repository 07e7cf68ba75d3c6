"""Pending edits: measured, and grouped so that each group can be taken or held by itself."""

from leyline_agent import Edit, Mode, Trajectory
from leyline_agent.proposal import Accepted
from leyline_agent.receipt import Reason
from leyline_agent.testing import tool_call
from leyline_agent.timing.pending import pending
from leyline_agent.view import record

MESSAGES = [
    {"role": "system", "content": "s" * 40},
    {"role": "user", "content": "t" * 80},
    {**tool_call("f", id="a"), "content": "c" * 40},
    {"role": "tool", "tool_call_id": "a", "content": "r" * 400},
    {**tool_call("f", id="b"), "content": "c" * 40},
    {"role": "tool", "tool_call_id": "b", "content": "r" * 800},
]
VIEW = Trajectory(MESSAGES)


def accepted(
    start, end, content=None, *, mode=Mode.REPAIR, reason=Reason.ENGINE_CANNOT_SPLICE, **edit
):
    replacement = () if content is None else ({**MESSAGES[start], "content": content},)
    made = Edit(start, end, replacement, mode, policy="p", **edit)
    sent = Mode.FORGET if reason is Reason.ENGINE_CANNOT_SPLICE else made.effective_mode()
    return Accepted(made, tuple(map(record, replacement)), sent, reason)


def test_an_edit_is_measured_in_tokens():
    (one,) = pending([accepted(3, 4, "r" * 40)], VIEW, known=5)
    size = VIEW.tokens([MESSAGES[3]])
    assert one.at == sum(VIEW.tokens([m]) for m in MESSAGES[:3])
    assert (one.removed, one.seen, one.inserted, one.saves) == (size, size, 10, size - 10)
    assert (one.must, one.repairs) == ("", 1)
    assert [(e.start, e.end, e.policy) for e in one.edits] == [(3, 4, "p")]


def test_edits_of_one_reply_and_its_results_belong_together():
    found = pending([accepted(2, 3, "c"), accepted(3, 4, "r"), accepted(5, 6, "r")], VIEW, known=6)
    assert [len(one.edits) for one in found] == [2, 1]
    found = pending([accepted(2, 5), accepted(5, 6, "r")], VIEW, known=6)
    assert [len(one.edits) for one in found] == [2]


def test_what_was_never_sent_and_what_saves_nothing_is_not_held():
    (new,) = pending([accepted(5, 6, "short")], VIEW, known=5)
    assert new.must == "what they change was never sent, so no cache is lost"
    assert new.seen == 0
    (longer,) = pending([accepted(3, 4, "r" * 900)], VIEW, known=5)
    assert longer.must == "they shorten nothing, so there is no saving to weigh"
    (inserted,) = pending([accepted(6, 6, None)], VIEW, known=6)
    assert inserted.must


def test_what_is_to_be_forgotten_is_not_held_and_what_an_engine_can_only_forget_may_be():
    (asked,) = pending([accepted(3, 4, "r", mode=Mode.FORGET, reason=Reason.ASKED)], VIEW, 6)
    (floor,) = pending([accepted(3, 4, "r", mode=Mode.FORGET, reason=Reason.USER_FLOOR)], VIEW, 6)
    (redacted,) = pending([accepted(3, 4, "r", reason=Reason.ASKED, redact=True)], VIEW, 6)
    forgotten = "what is to be forgotten is never held"
    assert [asked.must, floor.must, redacted.must] == [forgotten] * 3
    (cannot,) = pending([accepted(3, 4, "r")], VIEW, 6)
    assert cannot.must == ""


def test_what_the_harness_declared_is_not_held():
    one, other = pending([accepted(3, 4, "r"), accepted(5, 6, "r")], VIEW, 6, {(5, 6)})
    assert (one.must, other.must) == ("", "the harness declared them for this call")


def test_an_amortised_edit_computes_nothing_again():
    (one,) = pending([accepted(3, 4, "r", mode=Mode.AMORTIZE, reason=Reason.ASKED)], VIEW, 6)
    assert one.repairs == 0
