"""Recall on the bundled engine: sampled tokens stay, and nothing is computed twice."""

import json

import pytest
from recalling import TOOLS, Harness, output

from leyline_adapters.bundled.http import HttpAdapter
from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent import Mode, Reason, policy
from leyline_agent.recall.stubs import Ids


def called(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


RUN = called("bash", command="ls")
RECALL = called("leyline_recall", id=Ids().of(output(0)))


class Scripted:
    """Samples a text one character a token: ids that no tokenizer would give it."""

    def __init__(self, text, chat):
        encode = chat.tokenizer.encode
        self.ids = [id for character in text for id in encode(character)] + [min(chat.stop_ids)]

    def sample(self, logits):
        return self.ids.pop(0)


@pytest.fixture
def scripted(tiny_service, monkeypatch):
    """Lets the model say what it is told."""

    def script(*texts):
        left = iter(texts)
        sampler = lambda request: Scripted(next(left), tiny_service.chat)  # noqa: E731
        monkeypatch.setattr(tiny_service.engine, "sampler", sampler)

    return script


@pytest.fixture
def engine(tiny_service, scripted):
    """An adapter whose model says what it is told."""

    def make(*texts):
        scripted(*texts)
        return BundledAdapter(tiny_service)

    return make


@policy
def oldest(trajectory):
    """Stub the first result once there are two."""
    first, *others = trajectory.tool_results or [None]
    if others and len(first.content) > 100:
        yield first.replace("[old]", mode=Mode.AMORTIZE)


def test_the_next_call_goes_on_where_the_recall_ended(engine):
    agent = Harness(policies=oldest, adapter=engine(RUN, RUN, RECALL, RUN, "Done."))
    agent.turns(4)
    first, second, asked, shown, last = agent.session.receipts
    assert asked.reused_spliced > 0
    assert {r.reason for r in agent.session.receipts} == {Reason.ASKED}
    for before, behind in ((first, second), (asked, shown), (shown, last)):
        assert behind.previous == before.prompt + before.completion
        assert (behind.removed, behind.recomputed) == (0, 0)
        assert behind.reused == behind.previous
    assert shown.edits == last.edits == ()
    assert output(0) in [m["content"] for m in agent.session.view]
    assert agent.session.history == [*agent.messages[:-1], agent.messages[-1]]


def test_over_http(live_url, scripted):
    scripted(RUN, RUN, RECALL, "Done.")
    with HttpAdapter(live_url) as adapter:
        agent = Harness(policies=oldest, adapter=adapter)
        agent.turns(3)
    asked, shown = agent.session.receipts[-2:]
    assert shown.reason is Reason.ASKED
    assert shown.reused == asked.prompt + asked.completion
    assert agent.session.stats().recalls == 1


def test_a_recall_beside_other_calls_keeps_its_tokens(engine):
    agent = Harness(policies=oldest, adapter=engine(RUN, RUN, RECALL + RUN, "Done."))
    agent.turns(3)
    assert len(agent.messages[-2]["tool_calls"]) == 1
    agent.turn()
    asked, last = agent.session.receipts[-2:]
    assert last.previous == asked.prompt + asked.completion
    assert (last.removed, last.reused) == (0, last.previous)


def test_a_fork_behind_the_exchange_finds_it_cached(engine):
    agent = Harness(policies=oldest, adapter=engine(RUN, RUN, RECALL, "First.", "Second."))
    agent.turns(3)
    forked = [*agent.messages[:-1], {"role": "user", "content": "Another way?"}]
    turn = agent.session.begin(forked, tools=TOOLS)
    receipt = turn.finish(agent.adapter.complete(turn.request))
    hidden, shown = agent.session.receipts[-3:-1]
    assert receipt.base_version == shown.version
    assert receipt.reused >= hidden.prompt + hidden.completion
    assert receipt.edits == () or {e.reason for e in receipt.edits} == {Reason.UNDECLARED}


def test_a_recalled_output_is_spliced_out_like_any_other(engine):
    @policy
    def all_but_the_last(trajectory):
        for result in trajectory.tool_results[:-1]:
            if len(result.content) > 100:
                yield result.replace("[old]", mode=Mode.AMORTIZE)

    agent = Harness(policies=all_but_the_last, adapter=engine(RUN, RUN, RECALL, RUN, RUN, "Done."))
    agent.turns(5)
    assert agent.session.receipts[-1].reused_spliced > 0
    shown = [m for m in agent.session.view if m.get("tool_call_id")]
    assert output(0) not in [m["content"] for m in shown]
    assert [m["content"].startswith("[old]") for m in shown] == [True] * 4 + [False]
