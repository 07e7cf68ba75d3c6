"""Conversations that share an engine: one that counts, and a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent.adapter import Request
from leyline_agent.errors import AdapterError, EngineUnavailable
from leyline_agent.message import Message
from leyline_agent.policy import Policy, parse
from leyline_agent.testing import MockAdapter
from leyline_agent.testing.model import DeterministicModel
from leyline_evals.load.engine import Answer, Served, Target, counted, in_process, named
from leyline_evals.load.message_edit import EditOneMessage, MessageEdit
from leyline_evals.load.player import Played, play
from leyline_evals.load.report import LoadConfig, points, problems
from leyline_evals.load.runner import Load
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.workload import Run, Workload

ASKING = "summarise:trigger=10,keep=1,clear_at_least=1,max_tokens=10"
RUNS = list(MessageEdit(sessions=4, turns=4, system=40, turn=20).runs())


def played(runs: list[Run], arm: Arm, target: Target, **options: Any) -> Played:
    policy = options.pop("policy", EditOneMessage())
    return play(runs, arm, policy, target, **{"concurrency": 2, "mark": "0001", **options})


def test_the_arms_of_an_engine_that_counts(counting: Engines) -> None:
    make = counted(counting)
    every = {arm: played(RUNS, arm, make(arm)) for arm in ALL_ARMS}
    made = {point.arm: point for point in points(2, every)}
    assert not problems(2, every)
    assert {point.calls for point in made.values()} == {16}
    figures = {arm: point.figures for arm, point in made.items()}
    assert figures[Arm.PREFIX_CACHE].compute_tokens == figures[Arm.FORGET].compute_tokens
    assert figures[Arm.AMORTIZE].spliced_tokens > 0
    hits = [figures[arm].hit_rate for arm in (Arm.PREFIX_CACHE, Arm.AMORTIZE, Arm.APPEND_ONLY)]
    assert hits == sorted(set(hits))


def test_the_system_prompt_is_computed_once_for_all(counting: Engines) -> None:
    one = played(RUNS[:1], Arm.APPEND_ONLY, counted(counting)(Arm.APPEND_ONLY)).runs
    four = played(RUNS, Arm.APPEND_ONLY, counted(counting)(Arm.APPEND_ONLY)).runs
    assert one[0].rows[0].exact == 0
    assert sorted(bool(run.rows[0].exact) for run in four) == [False, True, True, True]


def test_a_model_in_this_process_says_when_its_first_token_came(running: Engines) -> None:
    arm = Arm.AMORTIZE
    (run, *_) = played(RUNS, arm, in_process(running, 1)(arm), concurrency=4).runs
    assert sum(row.spliced for row in run.rows) > 0
    assert all(row.ttft_ms and row.ttft_ms > 0 for row in run.rows)


@pytest.mark.parametrize("arm", [Arm.AMORTIZE, Arm.PREFIX_CACHE])
def test_a_server_serves_every_arm(live_url: str, arm: Arm) -> None:
    target = named(f"http={live_url}", None, 1)(arm)
    runs = played(RUNS[:2], arm, target).runs
    assert [len(run.rows) for run in runs] == [4, 4]
    spliced = sum(row.spliced for run in runs for row in run.rows)
    assert (spliced > 0) == (arm is Arm.AMORTIZE)
    assert sum(row.exact for run in runs for row in run.rows) > 0


def test_a_plain_server_is_told_of_no_edits(live_url: str) -> None:
    target = named(f"openai={live_url}", "tiny", 1)(Arm.AMORTIZE)
    assert isinstance(target.adapter, OpenAICompatibleAdapter)
    (run,) = played(RUNS[:1], Arm.AMORTIZE, target).runs
    assert not any(row.spliced for row in run.rows)
    assert run.rows[-1].exact > 0


class Watching:
    """Counts the calls under way; the third one fails."""

    adapter = OpenAICompatibleAdapter()

    def __init__(self) -> None:
        self.now, self.most, self.seen = 0, 0, list[str]()

    async def call(self, request: Request, reply: Message) -> Answer:
        self.now += 1
        self.most = max(self.most, self.now)
        self.seen.append(str(request["messages"][1]["content"])[:40])
        await asyncio.sleep(0.001)
        self.now -= 1
        if len(self.seen) == 3:
            raise EngineUnavailable("gone")
        return Answer({"usage": {"prompt_tokens": 10}}, 1.0)


def test_calls_under_way_are_limited_and_conversations_take_turns() -> None:
    target = Watching()
    played(RUNS, Arm.APPEND_ONLY, target)
    assert target.most == 2
    assert len(set(target.seen[:4])) == 4


def test_a_conversation_that_fails_ends_and_the_others_go_on() -> None:
    arm = Arm.APPEND_ONLY
    found = {arm: played(RUNS, arm, Watching(), concurrency=1)}
    assert [len(run.rows) for run in found[arm].runs] == [4, 4, 0, 4]
    (said,) = problems(1, found)
    assert said == "concurrency 1: append_only: 1 conversations ended with EngineUnavailable: gone"
    (point,) = points(1, found)
    assert (point.calls, point.ended) == (12, {"EngineUnavailable": 1})


def test_a_policy_that_raises_is_a_problem(counting: Engines) -> None:
    class Broken(Policy):
        def edits(self, trajectory: Any) -> Any:
            raise RuntimeError("oh")

    arm = Arm.AMORTIZE
    found = {arm: played(RUNS[:1], arm, counted(counting)(arm), policy=Broken())}
    assert "failed in 4 of 4 turns: RuntimeError: oh" in problems(1, found)[0]


def test_a_policy_that_asks_needs_somebody_who_answers(counting: Engines) -> None:
    target = counted(counting)(Arm.AMORTIZE)
    with pytest.raises(ReplayError, match="--fulfil extract"):
        played(RUNS, Arm.AMORTIZE, target, policy=parse(ASKING))


def test_recorded_runs_are_conversations_too(
    counting: Engines, runs_file: Callable[..., Path]
) -> None:
    runs = list(Workload([runs_file(5, 6)]))
    policy = parse("truncate_older_than:n=2,max_chars=20")
    target = counted(counting)(Arm.AMORTIZE)
    found = played(runs, Arm.AMORTIZE, target, policy=policy, max_turns=4)
    assert [len(run.rows) for run in found.runs] == [4, 4]
    assert sum(row.spliced for run in found.runs for row in run.rows) > 0


def test_no_two_arms_of_a_server_begin_alike() -> None:
    model = DeterministicModel(*["."] * 100, repeat=True)

    def make(arm: Arm) -> Target:
        return Served(MockAdapter(model), OpenAICompatibleAdapter(), 1)

    config = LoadConfig(
        workload="w", policy="keep_all", engine="mock", model="", tokens_only=False, reply_tokens=1
    )
    load = Load(RUNS[:2], config, make, [Arm.APPEND_ONLY], None)
    list(load.points([1, 2], lambda concurrency, arm: None))
    openings = {str(request["messages"][0]["content"]).split("\n")[0] for request in model.requests}
    assert len(openings) == 2
    assert len(load.report().points) == 2


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("nothing", AdapterError, "no adapter named 'nothing'"),
        ("openai", ReplayError, "where is the server"),
        ("anthropic", ReplayError, "makes no calls of its own"),
    ],
)
def test_a_wrong_engine_is_told(spec: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        named(spec, None, 1)
