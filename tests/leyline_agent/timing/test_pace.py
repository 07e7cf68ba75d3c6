"""Sessions with a timing: what is held is not lost, and what a tool's time can hide is hidden."""

import json
import logging
import threading

import pytest
from agent_loop import SYSTEM, TASK, Stub, call, contents, result, run
from hypothesis import given, settings
from hypothesis import strategies as st
from recalling import Harness, recalls, runs

from leyline_agent import Edit, EngineUnavailable, Mode, Policy, Session
from leyline_agent.adapter import Capabilities
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.timing.costs import Prices
from leyline_agent.timing.moment import When
from leyline_agent.timing.timing import Timing

PROVIDER = Capabilities(modes=frozenset({Mode.FORGET}))
HUGE = "line of output\n" * 400


class Clock:
    """A clock that stands still until it is told to go on."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def auto(**given):
    return Timing(**{"clock": Clock(), **given})


def provider(timing, policy=None, **options):
    """A session with a provider that has a prefix cache and tells what it found in it."""
    adapter = MockAdapter(DeterministicModel(lambda m: call(len(m)), repeat=True),
                          capabilities=PROVIDER)  # fmt: skip
    return Session(policy or Stub(), adapter, timing=timing, **options)


def turn_of(session, messages, **request):
    """One turn; the harness's messages behind it."""
    turn = session.begin(messages, **request)
    turn.finish(session.adapter.complete(turn.request))
    reply = session.history[-1]
    done = {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": HUGE}
    return turn, [*messages, reply, done]


def turns_of(session, count, messages=(SYSTEM, TASK)):
    turns, messages = [], list(messages)
    for _ in range(count):
        turn, messages = turn_of(session, messages)
        turns.append(turn)
    return turns, messages


def test_without_timing_there_are_no_moments():
    session = provider("now")
    turns, _ = turns_of(session, 4)
    assert [len(turn.edits) for turn in turns] == [0, 0, 1, 1]
    assert not any(turn.moments or turn.held for turn in turns)
    assert session.stats().held == 0


def test_a_provider_is_edited_when_it_pays():
    session = provider(auto(pays_within=1), Stub(n=4))
    turns, _ = turns_of(session, 12)
    assert [len(turn.edits) for turn in turns] == [0] * 12
    assert [len(turn.held) for turn in turns] == [0] * 5 + [*range(1, 8)]
    assert session.stats().held == sum(range(1, 8))
    session = provider(auto(), Stub(n=4))
    turns, _ = turns_of(session, 12)
    assert [len(turn.edits) for turn in turns] == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 0]
    for turn in turns:
        assert {m.when for m in turn.moments} <= {When.NOW, When.WAIT}
        assert sum(len(m.edits) for m in turn.moments) == len(turn.edits) + len(turn.held)


def test_what_costs_this_call_nothing_is_made_at_once():
    session = provider(auto(pays_within=1))
    turns, _ = turns_of(session, 3)
    (moment,) = turns[-1].moments
    assert (moment.when, moment.calls) == (When.NOW, 0.0)
    assert moment.cost < 0
    assert moment.reason == f"this call is cheaper with them, by {-moment.cost} uncached tokens"


def test_held_edits_leave_the_request_and_the_commit_alone():
    session = provider(auto(pays_within=1), Stub(n=4))
    turns, _ = turns_of(session, 7)
    assert turns[-1].held
    assert contents(turns[-1].request["messages"]).count("stub") == 0
    assert all(turn.commit.edits == () for turn in turns)


def test_nothing_waits_once_the_cache_has_gone_cold():
    timing = auto(pays_within=1)
    session = provider(timing, Stub(n=4))
    _, messages = turns_of(session, 7)
    timing.clock.now += 301
    turn, _ = turn_of(session, messages)
    assert (len(turn.edits), turn.held) == (3, ())
    (moment,) = turn.moments
    assert moment.reason == "the cache is cold: the last call was 301 s ago, and it keeps 300 s"


def test_what_is_to_be_forgotten_is_never_held():
    for policy, options in [
        (Stub(mode=Mode.FORGET), {}),
        (Stub(), {"mode_floor": "forget"}),
    ]:
        session = provider(auto(pays_within=1), policy, **options)
        turns, _ = turns_of(session, 4)
        assert [len(turn.edits) for turn in turns] == [0, 0, 1, 1]
        assert not any(turn.held for turn in turns)


def test_what_the_harness_declares_is_neither_held_nor_lost():
    session = provider(auto(pays_within=1))
    _, messages = turns_of(session, 5)
    stub = {**session.view[3], "content": "gone"}
    session.edit(Edit(3, 4, (stub,)))
    turn, _ = turn_of(session, messages)
    assert contents(turn.request["messages"])[3] == "gone"
    assert turn.moments[0].reason == "the harness declared them for this call"


class Both(Policy):
    """Drops the first call and its result by two edits, legal only together."""

    def edits(self, trajectory):
        """Two edits, of which the second is a redaction."""
        if len(trajectory.tool_results) > 2:
            yield Edit(2, 3, ())
            yield Edit(3, 4, ())


def test_edits_that_are_legal_together_only_are_made_together():
    class Splitting(Timing):
        def decide(self, pending, situation, costs):
            made = super().decide(pending, situation, costs)
            first = made[0].model_copy(update={"edits": made[0].edits[:1], "held": True})
            return (first, made[0].model_copy(update={"edits": made[0].edits[1:], "held": False}))

    session = provider(Splitting(clock=Clock()), Both())
    turns, _ = turns_of(session, 4)
    assert len(turns[-1].edits) == 2
    assert turns[-1].moments[0].reason == "they are legal together only"


def test_a_timing_that_raises_costs_no_turn(caplog):
    class Broken(Timing):
        def decide(self, pending, situation, costs):
            raise ZeroDivisionError

    session = provider(Broken())
    with caplog.at_level(logging.ERROR, "leyline"):
        turns, _ = turns_of(session, 3)
    assert len(turns[-1].edits) == 1
    assert turns[-1].moments[0].reason == "Broken raised ZeroDivisionError"
    assert "every edit is made at once" in caplog.text


def test_a_batching_policy_is_held_and_taken_as_a_batch():
    class Polling(Stub):
        def edits(self, trajectory):
            due = list(super().edits(trajectory))
            return due if len(due) >= 3 else []

    session = provider(auto(pays_within=1), Polling(n=4))
    turns, _ = turns_of(session, 10)
    assert [len(turn.held) for turn in turns] == [0, 0, 0, 0, 0, 0, 0, 3, 4, 5]
    patient = provider(auto(pays_within=10**6), Polling(n=4))
    turns, _ = turns_of(patient, 11)
    assert [len(turn.edits) for turn in turns] == [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 3]


class Engine(MockAdapter):
    """Records on which thread it edits ahead; may be made to wait or to fail."""

    def __init__(self, **given):
        super().__init__(DeterministicModel(lambda m: call(len(m)), repeat=True), **given)
        self.threads = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False

    def edit_ahead(self, request, commit):
        self.threads.append(threading.current_thread())
        assert self.gate.wait(10)
        if self.broken:
            raise EngineUnavailable("down")
        return super().edit_ahead(request, commit)


def test_repairs_are_made_while_the_tool_runs():
    engine = Engine()
    session = Session(Stub(), engine, timing=auto())
    turns, _ = turns_of(session, 4)
    session._pace.join()
    assert [len(turn.edits) for turn in turns] == [0] * 4
    assert [len(turn.held) for turn in turns] == [0, 0, 1, 1]
    held = turns[-1].moments[0]
    assert (held.when, held.held) == (When.TOOL, True)
    assert "the next tool's time hides that" in held.reason
    # What the tool's results made due is edited behind the reply to them.
    assert contents(session.view).count("stub") == 2
    assert threading.main_thread() not in engine.threads
    assert {receipt.edits[0].mode_used for receipt in session.receipts if receipt.edits} == {
        Mode.REPAIR
    }


def test_amortised_edits_wait_for_nothing():
    session = Session(Stub(mode=Mode.AMORTIZE), Engine(), timing="auto")
    turns, _ = turns_of(session, 4)
    assert [len(turn.edits) for turn in turns] == [0, 0, 1, 1]


def test_the_harness_does_not_wait_and_the_next_call_does():
    engine = Engine()
    session = Session(Stub(), engine, timing=auto())
    _, messages = turns_of(session, 2)
    engine.gate.clear()
    turn = session.begin(messages)
    turn.finish(engine.complete(turn.request))  # returns, though the engine stands
    reply = session.history[-1]
    messages = [*messages, reply, {**result(0), "tool_call_id": reply["tool_calls"][0]["id"]}]
    threading.Timer(0.05, engine.gate.set).start()
    following = session.begin(messages)
    assert following.commit.base_version == turn.commit.version + 1
    assert contents(following.request["messages"]).count("stub") == 1


def test_a_failure_there_costs_no_turn_and_the_next_call_edits(caplog):
    engine = Engine()
    session = Session(Stub(), engine, timing=auto())
    engine.broken = True
    with caplog.at_level(logging.DEBUG, "leyline"):
        turns, _ = turns_of(session, 5)
        session._pace.join()
    assert [len(turn.edits) for turn in turns] == [0, 0, 0, 2, 0]
    assert turns[3].moments[0].reason.endswith("they have waited for a tool before")
    told = [r for r in caplog.records if "while a tool runs failed" in r.message]
    assert [record.levelno for record in told] == [logging.WARNING, logging.DEBUG]
    assert "EngineUnavailable: down" in told[0].message


def test_a_busy_engine_is_left_alone_once():
    class Busy(Engine):
        def queue(self):
            return 2

    session = Session(Stub(), Busy(), timing=auto())
    turns, _ = turns_of(session, 5)
    session._pace.join()
    assert [len(turn.edits) for turn in turns] == [0, 0, 0, 2, 0]
    assert session.adapter.threads == []


def test_a_reply_without_calls_starts_nothing():
    engine = Engine()
    session = Session(Stub(n=0), engine, timing=auto())
    turn = session.begin([SYSTEM, TASK])
    turn.finish("Done.")
    session._pace.join()
    assert engine.threads == []


def test_the_journal_tells_the_moments_and_a_resumed_session_decides_alike(tmp_path):
    path = tmp_path / "one.jsonl"
    timing = auto(pays_within=1)
    session = provider(timing, Stub(n=4), journal=path)
    turns, messages = turns_of(session, 7)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    told = [event["moments"] for event in events if event["event"] == "commit"]
    assert told[:2] == [[], []]
    assert told[6] == [moment.model_dump(mode="json") for moment in turns[6].moments]
    assert told[6][0]["held"]
    assert told[6][0]["edits"][0] == {"start": 3, "end": 4, "policy": "stub"}
    again = Session.resume(path, Stub(n=4), session.adapter, timing=timing)
    for name in ("expected", "tool_missed", "prompt"):
        assert getattr(again._state.ledger, name) == getattr(session._state.ledger, name)
    assert again._state.ledger.answered == [e["time"] for e in events if "receipt" in e][-1]
    timing.clock.now = again._state.ledger.answered + 1
    assert again.begin(messages).held
    timing.clock.now = again._state.ledger.answered + 301
    assert not again.begin(messages).held


def test_a_resumed_session_knows_that_edits_have_waited_for_a_tool(tmp_path):
    path = tmp_path / "one.jsonl"
    engine = Engine()
    engine.broken = True
    session = Session(Stub(), engine, timing=auto(), journal=path)
    _, messages = turns_of(session, 3)
    session._pace.join()
    again = Session.resume(path, Stub(), Engine(), timing=auto())
    (moment,) = again.begin(messages).moments
    assert moment.reason.endswith("they have waited for a tool before")


@settings(deadline=None, max_examples=30)
@given(
    pays=st.integers(1, 200),
    read=st.floats(0.01, 1.0),
    write=st.floats(0.5, 2.0),
    ttl=st.floats(1, 600),
    steps=st.lists(st.floats(0, 700), min_size=6, max_size=10),
    splices=st.booleans(),
)
def test_what_is_held_is_proposed_and_made_in_the_end(pays, read, write, ttl, steps, splices):
    timing = auto(prices=Prices(read=read, write=write, ttl=ttl), pays_within=pays)
    session = Session(Stub(), Engine(), timing=timing) if splices else provider(timing)
    messages = [SYSTEM, TASK]
    for step in steps:
        timing.clock.now += step
        turn, messages = turn_of(session, messages)
        due = [m["content"] for m in turn.trajectory.messages[:-1] if m["role"] == "tool"]
        assert len(turn.edits) + len(turn.held) >= sum(c == HUGE for c in due) - 1
    timing.clock.now += 10_000
    run(session, 1, messages)
    session._pace.join()
    left = [m["content"] for m in session.view if m["role"] == "tool"][:-2]
    assert set(left) == {"stub"}


def test_moments_are_told_apart_by_text():
    session = provider(auto(pays_within=1), Stub(n=4))
    turns, _ = turns_of(session, 7)
    (moment,) = turns[-1].moments
    assert str(moment).startswith("2 edits held: costs ")


@pytest.mark.parametrize("timing", ["now", "auto"])
def test_an_adapter_that_cannot_edit_ahead_is_not_asked_to(timing):
    engine = Engine(capabilities=Capabilities(modes=frozenset(Mode), receipts=True))
    session = Session(Stub(), engine, timing=timing)
    turns, _ = turns_of(session, 4)
    assert [len(turn.edits) for turn in turns] == [0, 0, 1, 1]
    assert engine.threads == []


def test_edits_ahead_are_no_turns_in_the_figures_resumed_or_not(tmp_path):
    path = tmp_path / "one.jsonl"
    session = Session(Stub(), Engine(), timing=auto(), journal=path)
    turns_of(session, 5)
    session._pace.join()
    stats = session.stats()
    assert (stats.turns, stats.ahead, stats.edits) == (5, 3, 3)
    assert stats.prompt == stats.reused_exact + stats.reused_spliced + stats.compute
    again = Session.resume(path, Stub(), Engine(), timing=auto()).stats()
    assert (again.turns, again.ahead, again.prompt) == (5, 3, stats.prompt)


def test_a_hidden_recall_starts_nothing_and_the_turn_behind_it_does():
    engine = Engine()
    agent = Harness(
        *[runs()] * 3, recalls(0), runs(), runs(), "done", adapter=engine, timing=auto()
    )
    engine.model = DeterministicModel(*[runs()] * 3, recalls(0), runs(), runs(), "done")
    agent.turns(6)
    agent.session._pace.join()
    stats = agent.session.stats()
    assert (stats.turns, stats.hidden, stats.recalls, stats.failed) == (6, 1, 1, 0)
    assert len(engine.threads) == stats.ahead > 0
    assert {receipt.reason.value for receipt in agent.session.receipts} == {"asked"}
    assert agent.session.history == agent.messages
