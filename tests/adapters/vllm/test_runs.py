"""Whole runs at random: edits of every mode, lost answers, evictions, and figures that add up."""

from __future__ import annotations

from typing import Any

from fake_vllm import FakeVllm
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_adapters.vllm.adapter import VllmAdapter
from leyline_adapters.vllm.client.planning import Limits
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.receipt import Receipt
from leyline_agent.testing.talk import Talk, long_text

LIMITS = Limits(window=3, gate_tokens=2, stage_tokens=4, stages=3)
EVENTS = ("turn", "stream", "lost", "evicted", "restarted")


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[str, list[tuple[int, int, int, Mode]]]]:
    """Turns: what happens to each, and its edits (place, how many messages, how many put there)."""
    modes = st.sampled_from(Mode)
    edit = st.tuples(st.integers(2, 9), st.integers(1, 2), st.integers(0, 1), modes)
    turn = st.tuples(st.sampled_from(EVENTS), st.lists(edit, max_size=3))
    return draw(st.lists(turn, min_size=1, max_size=6))


def edits_of(talk: Talk, wanted: list[tuple[int, int, int, Mode]], seed: int) -> list[Edit]:
    """Those that fit the view, not overlapping."""
    view, found, cursor = talk.session.view, [], 2
    for start, size, put, mode in sorted(wanted):
        end = start + size
        if start < cursor or end > len(view) - 1:
            continue
        stub = {"role": view[start]["role"], "content": f"cut {seed} {start}"}
        found.append(Edit(start, end, (stub,) * put, mode))
        cursor = end + 1
    return found


def check(receipt: Receipt, fake: FakeVllm) -> None:
    """What a receipt says is what the server did."""
    asks = fake.asks()
    assert receipt.prompt == receipt.reused + receipt.compute
    assert sum(sum(edit.recomputed.values()) for edit in receipt.edits) == receipt.recomputed
    source = list(fake.sources.values())[-1]  # the turn's own
    prompt = source.tokens[: receipt.prompt]
    spliced = fake.spliced_from(prompt, source.kv)
    if spliced is None:
        assert receipt.reused_spliced == 0
    else:
        assert spliced >= receipt.reused_exact
    assert asks[-1].claims == tuple(sorted(asks[-1].claims, key=lambda claim: claim.at))


def play(adapter: VllmAdapter, fake: FakeVllm, run: Any) -> Talk:
    talk = Talk(adapter, {"temperature": 0, "max_tokens": 4})
    talk.say("You help.", role="system")
    talk.say("Do it.")
    for number in range(6):
        talk.say(long_text(12, number), role=("assistant", "user")[number % 2])
    talk.turn()
    for number, (event, wanted) in enumerate(run):
        if event == "evicted":
            fake.sources.pop(next(iter(fake.sources)), None)
        if event == "restarted":
            fake.sources.clear()
            fake.forget()
        for edit in edits_of(talk, wanted, number):
            talk.session.edit(edit)
        if event == "lost":
            turn = talk.begin(f"Turn {number}.")
            adapter.complete(turn.request)
            turn.fail("lost")
            talk.messages.pop()
        receipt = talk.turn(f"Turn {number}.", stream=event == "stream")
        check(receipt, fake)
    return talk


@settings(max_examples=25, deadline=None)
@given(runs())
def test_every_receipt_says_what_was_done(run: Any) -> None:
    fake = FakeVllm()
    with VllmAdapter("http://vllm", limits=LIMITS, transport=fake.transport) as adapter:
        play(adapter, fake, run)
    assert len(fake.sources) < 4 * (len(run) + 2)


@settings(max_examples=12, deadline=None)
@given(runs())
def test_runs_that_only_forget_are_what_a_prefill_gives(run: Any) -> None:
    forgetting = [(event, [(*edit[:3], Mode.FORGET) for edit in wanted]) for event, wanted in run]
    fake, fresh = FakeVllm(), FakeVllm(connector=False)
    fresh.vocabulary = fake.vocabulary
    with (
        VllmAdapter("http://vllm", limits=LIMITS, transport=fake.transport) as adapter,
        VllmAdapter("http://plain", transport=fresh.transport) as plain,
    ):
        talk = play(adapter, fake, forgetting)
        assert all(receipt.reused_spliced == 0 for receipt in talk.session.receipts)
        again = plain.complete({"messages": talk.view, "max_tokens": 4})
        assert again["choices"][0]["message"]["content"] == talk.reply["content"]
