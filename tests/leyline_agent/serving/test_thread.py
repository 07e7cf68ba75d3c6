"""The engine's thread: it drives while there is work, and event loops wait without blocking."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from leyline_agent.serving.engine import Engine, Prompt
from leyline_agent.serving.scheduler import Job, Scheduler, Steps
from leyline_agent.serving.thread import EngineThread


@pytest.fixture
async def thread() -> AsyncIterator[EngineThread]:
    thread = EngineThread(Scheduler(Engine.counting(1000)))
    yield thread
    until_idle(thread)
    pool, forest = thread.scheduler.engine.pool, thread.scheduler.engine.forest
    assert pool.num_used == forest.num_tokens


def until_idle(thread: EngineThread) -> None:
    thread.scheduler.drive(lambda: thread.scheduler.idle)


class Reply:
    """A reply of so many tokens, which remembers which threads made it."""

    def __init__(self, engine: Engine, length: int) -> None:
        self.engine = engine
        self.length = length
        self.made = 0
        self.threads: set[str] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self.job = Job(self.steps)

    def steps(self) -> Steps[int]:
        run = yield from self.engine.when_room(lambda: self.engine.open(Prompt([1, 2])))
        try:
            yield from run.computing()
            for number in range(self.length):
                self.threads.add(threading.current_thread().name)
                self.made += 1
                assert self.go_on.wait(10)
                yield number
                if number < 500:
                    yield from self.engine.when_room(lambda: run.append([3]))
                    yield from run.computing()
            return self.made
        finally:
            self.engine.abandon(run)


async def test_replies_are_made_on_one_thread_together(thread: EngineThread) -> None:
    first, second = (Reply(thread.scheduler.engine, 50) for _ in range(2))
    tasks = [thread.submit(reply.job) for reply in (first, second)]
    assert [body async for body in tasks[0]] == list(range(50))
    assert await tasks[1].result() == 50
    assert first.threads == second.threads == {"leyline-engine"}


async def test_the_thread_ends_with_the_work_and_begins_again(thread: EngineThread) -> None:
    for _ in range(3):
        assert await thread.call(Reply(thread.scheduler.engine, 5).job) == 5
        while any(t.name == "leyline-engine" for t in threading.enumerate()):
            await asyncio.sleep(0.001)


async def test_the_loop_runs_on_meanwhile(thread: EngineThread) -> None:
    release = threading.Event()
    working = asyncio.create_task(thread.call(Job.of(lambda: release.wait(10))))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not working.done()
    release.set()
    assert await working


async def test_cancelling_ends_the_job(thread: EngineThread) -> None:
    reply = Reply(thread.scheduler.engine, 490)
    reply.go_on.clear()
    call = asyncio.create_task(thread.call(reply.job))
    while not reply.made:
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    reply.go_on.set()
    until_idle(thread)
    assert reply.made < 490


async def test_cancelled_before_its_turn_it_never_runs(thread: EngineThread) -> None:
    release, ran = threading.Event(), threading.Event()
    first = asyncio.create_task(thread.call(Job.of(lambda: release.wait(10))))
    second = asyncio.create_task(thread.call(Job.of(ran.set)))
    await asyncio.sleep(0.01)
    second.cancel()
    await asyncio.sleep(0)
    release.set()
    await first
    until_idle(thread)
    assert not ran.is_set()


async def test_an_error_is_raised_where_it_is_awaited(thread: EngineThread) -> None:
    def failing() -> Steps[None]:
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await thread.call(Job(failing))
    items = aiter(thread.submit(Job(failing)))
    assert await anext(items) == 1
    with pytest.raises(ValueError, match="no"):
        await anext(items)


def test_a_loop_that_is_gone_stops_nothing() -> None:
    thread = EngineThread(Scheduler(Engine.counting(1000)))
    begun = threading.Event()

    async def leave() -> None:
        thread.submit(Job(lambda: _signalling(begun)))

    asyncio.run(leave())
    assert begun.wait(10)
    until_idle(thread)


def _signalling(begun: threading.Event) -> Steps[None]:
    begun.set()
    yield from range(100)
