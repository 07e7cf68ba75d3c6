"""The engine's thread: order, one thread, and what cancelling does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import aclosing

import pytest

from leyline_agent.serving.thread import EngineThread


class Counter:
    """Counts up, remembering which threads asked and whether it was closed."""

    def __init__(self, stop: int = 1_000_000) -> None:
        self.stop = stop
        self.count = 0
        self.closed_on = ""
        self.threads: set[str] = set()

    def __call__(self) -> Generator[int, None, None]:
        try:
            while self.count < self.stop:
                self.threads.add(threading.current_thread().name)
                self.count += 1
                yield self.count
        finally:
            self.closed_on = threading.current_thread().name


@pytest.fixture
async def thread() -> AsyncIterator[EngineThread]:
    thread = EngineThread()
    yield thread
    thread.close()


async def test_everything_runs_on_one_thread(thread: EngineThread) -> None:
    first, second = Counter(5), Counter(5)

    async def collect(counter: Counter) -> list[int]:
        return [item async for item in thread.iterate(counter())]

    both = await asyncio.gather(collect(first), collect(second))
    assert both == [[1, 2, 3, 4, 5]] * 2
    assert await thread.drain(Counter(7)()) == 7
    assert await thread.drain(Counter(0)()) is None
    assert first.threads == second.threads
    assert threading.current_thread().name not in first.threads


async def test_the_loop_runs_on_meanwhile(thread: EngineThread) -> None:
    release = threading.Event()
    working = asyncio.create_task(thread.call(lambda: release.wait(10)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not working.done()
    release.set()
    assert await working


async def test_stopping_early_closes_on_the_thread(thread: EngineThread) -> None:
    counter = Counter()
    async with aclosing(thread.iterate(counter())) as items:
        async for item in items:
            if item == 3:
                break
    await thread.call(lambda: None)
    assert counter.count == 3
    assert {counter.closed_on} == counter.threads


async def test_cancelled_in_a_step(thread: EngineThread) -> None:
    # The step is being computed when its consumer goes: no "generator already executing".
    begun, release, closed = threading.Event(), threading.Event(), threading.Event()

    def steps() -> Generator[int, None, None]:
        try:
            begun.set()
            release.wait(10)
            yield 1
            yield 2
        finally:
            closed.set()

    async def consume() -> None:
        async for _ in thread.iterate(steps()):
            pass

    task = asyncio.create_task(consume())
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    await thread.call(lambda: None)
    assert closed.is_set()


async def test_a_drained_generator_stops_when_nobody_waits(thread: EngineThread) -> None:
    counter = Counter()
    task = asyncio.create_task(thread.drain(counter()))
    while counter.count < 10:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await thread.call(lambda: None)
    assert counter.count < 1_000_000
    assert counter.closed_on


async def test_cancelled_before_its_turn_it_never_runs(thread: EngineThread) -> None:
    release, ran = threading.Event(), threading.Event()
    first = asyncio.create_task(thread.call(lambda: release.wait(10)))
    second = asyncio.create_task(thread.call(ran.set))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    await first
    await thread.call(lambda: None)
    assert not ran.is_set()


async def test_an_error_is_raised_where_it_is_awaited(thread: EngineThread) -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await thread.drain(failing())
    items = thread.iterate(failing())
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="no"):
        await anext(items)
