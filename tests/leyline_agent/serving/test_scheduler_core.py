"""The scheduler's core over an engine that only counts: what is in a pass, and who gives way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.errors import OutOfSlots
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.run import Run
from leyline_agent.serving.scheduler_core import Core, Job, Steps, Task


@dataclass
class Request:
    """A prompt and a reply that sends a body a token, or all of it at the end."""

    tenant: str
    prompt: int = 8
    reply: int = 4
    key: str | None = None
    stream: bool = True
    begun: int = 0
    run: Run | None = None
    bodies: list[int] = field(default_factory=list)

    def job(self, engine: Engine) -> Job[int]:
        return Job(lambda: self.steps(engine), self.key)

    def steps(self, engine: Engine) -> Steps[int]:
        self.begun += 1
        tokens = list(range(self.prompt))
        self.run = run = yield from engine.when_room(
            lambda: engine.open(Prompt(list(tokens), self.tenant))
        )
        try:
            yield from run.computing()
            for number in range(self.reply):
                if self.stream:
                    yield number
                yield from engine.when_room(lambda: run.append([7]))
                yield from run.computing()
            return len(run.sequence)
        finally:
            engine.abandon(run)


class Watched:
    """A core, and the passes it computed: how many tokens of whom."""

    def __init__(self, num_slots: int = 1000, **config: Any) -> None:
        self.engine = Engine.counting(num_slots, replace(EngineConfig(), **config))
        self.core = Core(self.engine)
        self.passes: list[list[tuple[str, int]]] = []
        self.tasks: list[Task[int]] = []
        self.fault: Callable[[Run], bool] = lambda run: False
        compute = self.engine.compute

        def watched(batch: Any) -> None:
            if any(self.fault(run) for run, _ in batch):
                raise ValueError("no")
            sizes = [(run.tenant, min(size, len(run.pending))) for run, size in batch]
            compute(batch)
            self.passes.append(sizes)

        self.engine.compute = watched  # type: ignore[method-assign]

    def add(self, request: Request) -> Task[int]:
        told, ended = request.bodies.append, lambda: None
        task = Task(request.job(self.engine), len(self.tasks), told, ended)
        self.tasks.append(task)
        self.core.take(task)
        return task

    def rounds(self, most: int = 10_000) -> None:
        while self.core.round():
            most -= 1
            assert most, "it never ends"

    def check_empty(self) -> None:
        assert not self.core.running
        assert not self.core.waiting
        with self.engine.exclusive():
            assert self.engine.pool.num_used == self.engine.forest.num_tokens


def test_replies_come_first_and_prompts_fill_up() -> None:
    core = Watched(chunk=10)
    core.add(Request("a", prompt=4, reply=9))
    core.core.round()
    core.add(Request("b", prompt=25, reply=2))
    core.rounds()
    assert core.passes[0] == [("a", 4)]
    # A long prompt never holds the reply up for longer than one pass.
    assert core.passes[1:5] == [
        [("a", 1), ("b", 9)],
        [("a", 1), ("b", 9)],
        [("a", 1), ("b", 7)],
        [("a", 1), ("b", 1)],
    ]
    core.check_empty()


def test_prompts_are_computed_in_order_of_arrival() -> None:
    core = Watched(chunk=10)
    for tenant in "abc":
        core.add(Request(tenant, prompt=8, reply=0))
    core.rounds()
    assert core.passes == [[("a", 8), ("b", 2)], [("b", 6), ("c", 4)], [("c", 4)]]


def test_no_more_at_once_than_allowed_and_first_come_first_served() -> None:
    core = Watched(max_batch=2)
    requests = [Request(tenant) for tenant in "abcde"]
    tasks = [core.add(request) for request in requests]
    order = []
    while core.core.round():
        order += [r.tenant for r in requests if r.bodies and r.tenant not in order]
    assert order == list("abcde")
    assert max(len(sizes) for sizes in core.passes) == 2
    assert [task.result() for task in tasks] == [12] * 5
    core.check_empty()


def test_jobs_of_one_key_are_done_one_after_the_other() -> None:
    core = Watched()
    first, second = Request("a", key="k"), Request("b", key="k")
    other = Request("c", key="l")
    for request in (first, second, other):
        core.add(request)
    core.core.round()
    assert (first.begun, second.begun, other.begun) == (1, 0, 1)
    core.rounds()
    together = [{tenant for tenant, _ in sizes} for sizes in core.passes]
    assert {"a", "c"} in together
    assert {"b", "c"} not in together
    assert not any({"a", "b"} <= tenants for tenants in together)
    assert second.bodies == [0, 1, 2, 3]


def test_a_cancelled_task_is_gone_with_the_next_round() -> None:
    core = Watched()
    running, waiting = Request("a", reply=100), Request("b", key="k")
    task = core.add(running)
    core.core.round()
    core.core.round()
    later = core.add(waiting)
    task.cancelled = later.cancelled = True
    assert not core.core.round()
    assert task.done
    assert waiting.begun == 0
    core.check_empty()


def test_a_fault_fails_the_one_it_concerns() -> None:
    core = Watched()
    good, bad = Request("good"), Request("bad")
    tasks = [core.add(good), core.add(bad)]
    core.fault = lambda run: run.tenant == "bad" and len(run.sequence) == 10
    core.rounds()
    assert tasks[0].result() == 12
    assert good.bodies == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no"):
        tasks[1].result()
    assert bad.bodies == [0, 1]
    core.check_empty()


# -- too few slots --------------------------------------------------------------------------------


def test_a_prompt_without_room_waits_and_holds_up_no_reply() -> None:
    core = Watched(30)
    first, second = Request("a", prompt=10, reply=10), Request("b", prompt=25, reply=2)
    third = Request("c", prompt=1, reply=1)
    tasks = [core.add(request) for request in (first, second, third)]
    core.core.round()
    assert (second.run, third.begun) == (None, 0)  # nobody passes it by
    core.rounds()
    assert [task.result() for task in tasks] == [20, 27, 2]
    core.check_empty()


def test_a_later_request_that_sent_nothing_begins_again() -> None:
    core = Watched(40)
    first = Request("a", prompt=10, reply=20)
    second = Request("b", prompt=10, reply=20, stream=False)
    tasks = [core.add(first), core.add(second)]
    core.rounds()
    assert [task.result() for task in tasks] == [30, 30]
    assert (first.begun, second.begun) == (1, 2)
    assert first.bodies == list(range(20))
    core.check_empty()


def test_of_two_that_have_sent_something_the_later_one_fails() -> None:
    core = Watched(40)
    tasks = [core.add(Request(tenant, prompt=10, reply=25)) for tenant in "ab"]
    core.rounds()
    assert tasks[0].result() == 35
    with pytest.raises(OutOfSlots, match="slots are needed"):
        tasks[1].result()
    core.check_empty()


def test_what_can_never_fit_is_refused() -> None:
    core = Watched(40)
    tasks = [core.add(Request("a", prompt=50)), core.add(Request("b", prompt=10, reply=40))]
    tasks.append(core.add(Request("c")))
    core.rounds()
    for task in tasks[:2]:
        with pytest.raises(OutOfSlots):
            task.result()
    assert tasks[2].result() == 12
    core.check_empty()


# -- anything -------------------------------------------------------------------------------------


@st.composite
def plans(draw: st.DrawFn) -> tuple[dict[str, int], list[tuple[int, Request, int | None]]]:
    config = {
        "num_slots": draw(st.integers(20, 120)),
        "max_batch": draw(st.integers(1, 4)),
        "chunk": draw(st.integers(1, 16)),
    }
    requests = []
    for number in range(draw(st.integers(1, 8))):
        request = Request(
            tenant=draw(st.sampled_from(["x", "y", str(number)])),
            prompt=draw(st.integers(1, 40)),
            reply=draw(st.integers(0, 20)),
            key=draw(st.sampled_from([None, None, "k", "l"])),
            stream=draw(st.booleans()),
        )
        arrival, gone = draw(st.integers(0, 30)), draw(st.none() | st.integers(0, 60))
        requests.append((arrival, request, gone))
    return config, sorted(requests, key=lambda r: r[0])


@given(plans())
@settings(deadline=None, max_examples=300)
def test_everything_ends_and_nothing_leaks(plan: Any) -> None:
    config, requests = plan
    core = Watched(**config)
    done: dict[int, Task[int]] = {}
    number = 0
    while number < 5000 and (len(done) < len(requests) or core.core.round()):
        for at, (arrival, request, gone) in enumerate(requests):
            if at not in done and arrival <= number:
                done[at] = core.add(request)
            if at in done and gone is not None and gone <= number:
                done[at].cancelled = True
        core.core.round()
        number += 1
    assert number < 5000
    core.check_empty()
    for at, (_, request, gone) in enumerate(requests):
        task = done[at]
        assert task.done
        assert request.bodies == list(range(len(request.bodies)))  # each once, in order
        if request.bodies:
            assert request.stream
        if task.error is None and (gone is None or task.value is not None):
            assert task.value == request.prompt + request.reply
            assert len(request.bodies) == (request.reply if request.stream else 0)
        elif task.error is not None:
            assert isinstance(task.error, OutOfSlots)
    for sizes in core.passes:
        assert len([1 for _, size in sizes if size == 1]) <= config["max_batch"] + 1
        assert sum(size for _, size in sizes) <= max(config["chunk"], config["max_batch"] + 1)
    fits = [r.prompt + r.reply <= config["num_slots"] for _, r, _ in requests]
    if len(requests) == 1 and fits[0] and requests[0][2] is None:
        assert done[0].error is None
