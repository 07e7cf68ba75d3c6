"""The scheduler from several threads: who drives, what is batched, and what closing leaves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from leyline_agent.serving.engine import Engine, Prompt
from leyline_agent.serving.scheduler import Job, Scheduler, Steps


class Counted:
    """Jobs over an engine that only counts; how many runs each pass had."""

    def __init__(self) -> None:
        self.engine = Engine.counting(10_000)
        self.scheduler = Scheduler(self.engine)
        self.sizes: list[int] = []
        self.meet = threading.Event()
        self.meet.set()
        compute = self.engine.compute

        def watched(batch: Any) -> None:
            self.meet.wait(10)
            self.sizes.append(len(batch))
            compute(batch)

        self.engine.compute = watched  # type: ignore[method-assign]

    def job(self, tenant: str, reply: int, key: str | None = None) -> Job[str]:
        def steps() -> Steps[str]:
            run = yield from self.engine.when_room(
                lambda: self.engine.open(Prompt(list(range(5)), tenant))
            )
            try:
                yield from run.computing()
                for number in range(reply):
                    yield f"{tenant}{number}"
                    yield from self.engine.when_room(lambda: run.append([7]))
                    yield from run.computing()
                return tenant
            finally:
                self.engine.abandon(run)

        return Job(steps, key)

    def check_empty(self) -> None:
        assert self.scheduler.idle
        assert (self.scheduler.num_running, self.scheduler.num_waiting) == (0, 0)
        with self.engine.exclusive():
            assert self.engine.pool.num_used == self.engine.forest.num_tokens


def test_one_alone_needs_no_other_thread() -> None:
    counted = Counted()
    before = threading.active_count()
    assert counted.scheduler.run(counted.job("a", 3)) == "a"
    assert threading.active_count() == before
    counted.check_empty()


def test_calls_from_several_threads_are_batched() -> None:
    counted = Counted()
    counted.meet.clear()
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(counted.scheduler.run, counted.job(name, 50)) for name in "abcdef"]
        while counted.scheduler.num_waiting < 5:
            pass
        counted.meet.set()
        assert [call.result(10) for call in calls] == list("abcdef")
    assert max(counted.sizes) == 6
    assert sum(counted.sizes) == 6 * 51
    counted.check_empty()


def test_a_stream_goes_on_only_when_it_is_asked() -> None:
    counted = Counted()
    stream = counted.scheduler.stream(counted.job("a", 1000, key="k"))
    assert [next(stream), next(stream)] == ["a0", "a1"]
    passes = len(counted.sizes)
    assert counted.scheduler.run(counted.job("b", 3, key="k")) == "b"  # it waits for no stream
    assert len(counted.sizes) == passes + 4
    assert next(stream) == "a2"
    stream.close()  # type: ignore[attr-defined]
    counted.check_empty()
    assert list(counted.scheduler.stream(counted.job("c", 2))) == ["c0", "c1"]


def test_an_interrupted_thread_takes_its_own_job_along(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    compute = counted.engine.compute

    def interrupted(batch: Any) -> None:
        monkeypatch.setattr(counted.engine, "compute", compute)
        raise KeyboardInterrupt

    other = counted.scheduler.submit(counted.job("other", 3))
    monkeypatch.setattr(counted.engine, "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        counted.scheduler.run(counted.job("a", 3))
    counted.scheduler.drive(lambda: other.done)
    assert other.result() == "other"
    counted.check_empty()


def test_an_error_is_raised_where_the_result_is_awaited() -> None:
    counted = Counted()

    def steps() -> Steps[None]:
        yield "one"
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        counted.scheduler.run(Job(steps))
    stream = counted.scheduler.stream(Job(steps))
    assert next(stream) == "one"
    with pytest.raises(ValueError, match="no"):
        next(stream)
    counted.check_empty()


def test_threads_that_stream_run_and_break_off() -> None:
    counted = Counted()

    def work(number: int) -> bool:
        name = f"{number}-"
        for turn in range(20):
            if (number + turn) % 3 == 0:
                stream = counted.scheduler.stream(counted.job(name, 5))
                assert next(stream) == f"{name}0"
                stream.close()  # type: ignore[attr-defined]
            elif (number + turn) % 3 == 1:
                sent = list(counted.scheduler.stream(counted.job(name, 5)))
                assert sent == [f"{name}{i}" for i in range(5)]
            else:
                assert counted.scheduler.run(counted.job(name, 5, key=str(turn))) == name
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8), timeout=60))
    counted.check_empty()
