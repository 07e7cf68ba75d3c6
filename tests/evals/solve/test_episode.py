"""The model of one episode: its figures, its limits, and what it makes of failures."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from recalling import TOOLS, recalls

from leyline_agent.adapter import Request
from leyline_agent.errors import ContextOverflow, LeylineError
from leyline_agent.recall.options import Recall
from leyline_agent.session import Session
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call
from leyline_agent.testing.model import Reply
from leyline_evals.solve.arms import Mechanism, SolveArm
from leyline_evals.solve.driver import Limits
from leyline_evals.solve.episode import EpisodeModel
from leyline_evals.solve.errors import Interrupted, LimitReached, ModelFailed
from leyline_evals.solve.tally import Heard

POLICY = "truncate_older_than:n=1,max_chars=20"
TASK = {"role": "user", "content": "go"}
NOISE = "a line of output\n" * 40


def model_of(*script: Reply, limits: Limits | None = None, **options: Any) -> EpisodeModel:
    """An episode behind a simulated engine, its arm repairing."""
    adapter = MockAdapter(DeterministicModel(*script, repeat=True))
    arm = SolveArm(policy=POLICY, mechanism=Mechanism.REPAIR)
    session = Session(arm.policies(), adapter, observations="user")

    def call(request: Request) -> Heard:
        return Heard(adapter.complete(request), ttft_ms=12.5, cost=0.25)

    return EpisodeModel(session, call, limits or Limits(), **options)


def loop(model: EpisodeModel) -> None:
    """A driver that never ends by itself."""
    messages = [TASK]
    for _ in range(50):
        messages += [model(messages), {"role": "user", "content": "and?"}]


def test_a_step_has_the_figures_of_its_receipt() -> None:
    model = model_of("a", "a long thought " * 20, "c")
    messages = [TASK]
    steps = []
    for number in range(3):
        messages.append(model(messages))
        steps.append(model.step("read", 0.5, reads=["f.py"], writes=[f"{number}.py"]))
        messages.append({"role": "user", "content": NOISE})
    for step, receipt in zip(steps, model.session.receipts, strict=True):
        assert step.prompt == receipt.prompt > 0
        assert step.exact + step.spliced + step.recomputed + step.prefilled == step.prompt
        assert step.prefilled == receipt.prefilled
        assert step.completion == receipt.completion > 0
    assert [step.edits for step in steps] == [0, 0, 1]
    assert steps[2].modes == {"repair": 1}
    assert steps[2].spliced > 0
    assert [step.number for step in steps] == [1, 2, 3]
    last = steps[2]
    assert (last.ttft_ms, last.cost, last.calls, last.stopped) == (12.5, 0.25, 1, "stop")
    assert (last.action, last.tool_seconds, last.reads, last.writes) == (
        "read",
        0.5,
        ("f.py",),
        ("2.py",),
    )


def test_a_step_is_taken_once() -> None:
    model = model_of("a")
    assert not model.pending
    model([TASK])
    assert model.pending
    model.step()
    with pytest.raises(LeylineError, match="no reply to record"):
        model.step()


@pytest.mark.parametrize(
    ("limits", "script", "limit", "calls"),
    [
        (Limits(steps=3), ["a", "b", "c", "d"], "steps", 3),
        (Limits(tokens=12), ["a", "b", "c", "d"], "tokens", 3),
        (Limits(repeats=3), ["a", "b", "b", "b", "b"], "repeats", 4),
    ],
)
def test_limits_end_an_endless_loop(
    limits: Limits, script: list[str], limit: str, calls: int
) -> None:
    model = model_of(*script, limits=limits)
    with pytest.raises(LimitReached) as reached:
        loop(model)
    assert reached.value.limit == limit
    assert len(model.session.receipts) == calls


def test_the_same_call_again_and_again_is_a_repeat_though_its_id_differs() -> None:
    model = model_of(tool_call("bash", command="ls"), limits=Limits(repeats=2))
    messages = [TASK]
    for number in range(2):
        reply = model(messages)
        result = {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": "x"}
        messages += [reply, result]
        assert reply["tool_calls"][0]["id"] == f"call_{number}_0"
    with pytest.raises(LimitReached, match="the same reply came 2 times in a row"):
        model(messages)


def test_the_clock_ends_an_episode() -> None:
    times = iter(range(0, 1000, 7))
    model = model_of("a", limits=Limits(seconds=30, repeats=0), now=lambda: float(next(times)))
    with pytest.raises(LimitReached) as reached:
        loop(model)
    assert reached.value.limit == "seconds"


def test_every_step_draws_from_a_seed_of_its_own() -> None:
    model = model_of("a", "b", sampling={"seed": 100, "temperature": 0.5})
    messages = [TASK]
    for _ in range(2):
        messages += [model(messages), TASK]
    adapter = model.session.adapter
    assert isinstance(adapter, MockAdapter)
    asked = adapter.model.requests
    assert [request["seed"] for request in asked] == [100, 101]
    assert asked[0]["temperature"] == 0.5
    assert asked[0]["max_tokens"] == 1024


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        (OSError("the server is gone"), ModelFailed, "OSError: the server is gone"),
        (ContextOverflow("9,000 tokens do not fit"), LimitReached, "9,000 tokens do not fit"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
)
def test_a_failed_call_commits_nothing(
    script: BaseException, error: type[BaseException], says: str
) -> None:
    model = model_of(script)
    with pytest.raises(error, match=says):
        model([TASK])
    assert model.session.version == 0
    assert not model.pending
    assert model.session.stats().failed == 1


def test_an_answer_that_is_no_completion_is_the_models_failure() -> None:
    session = Session(None, None)
    model = EpisodeModel(session, lambda request: Heard({"error": "busy"}), Limits())
    with pytest.raises(ModelFailed, match="no chat completion"):
        model([TASK])


def test_a_sitting_that_ends_stops_the_episode() -> None:
    stop = threading.Event()
    model = model_of("a", is_over=stop.is_set)
    model([TASK])
    stop.set()
    with pytest.raises(Interrupted):
        model([TASK])


def test_hidden_calls_are_part_of_the_step() -> None:
    """A recall is a call of the model that the driver sees nothing of; its tokens are counted."""
    adapter = MockAdapter(
        DeterministicModel(
            tool_call("bash", id="one", command="cat a"),
            tool_call("bash", id="two", command="cat b"),
            recalls(0),
            "done",
        )
    )
    arm = SolveArm(policy=POLICY, mechanism=Mechanism.REPAIR)
    session = Session(arm.policies(), adapter, recall=Recall())
    model = EpisodeModel(session, lambda request: Heard(adapter.complete(request)), Limits())
    messages = [TASK]
    for name in ("one", "two"):
        messages.append(model(messages, TOOLS))
        model.step()
        messages.append({"role": "tool", "tool_call_id": name, "content": NOISE})
    assert model(messages, TOOLS)["content"] == "done"
    step = model.step()
    assert (step.calls, step.recalls) == (2, 1)
    receipts = session.receipts[-2:]
    assert step.prompt == sum(receipt.prompt for receipt in receipts)
