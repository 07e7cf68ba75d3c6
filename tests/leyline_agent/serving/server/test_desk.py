"""The desk: requests together, slow readers, hanging up, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Request

from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Prompt
from leyline_agent.serving.scheduler import Job, Steps
from leyline_agent.serving.server.desk import Desk


class Client:
    """A client as the server sees it: it stays until `hang_up`."""

    def __init__(self) -> None:
        self._gone = asyncio.Event()
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def hang_up(self) -> None:
        self._gone.set()


class Reply:
    """A reply of `count` tokens that sends every second one, and remembers how far it came."""

    def __init__(self, desk: Desk, count: int, fails_at: int | None = None) -> None:
        self.engine = desk.service.engine
        self.count = count
        self.fails_at = fails_at
        self.done = 0
        self.closed = False
        self.job = Job(self.steps)

    def steps(self) -> Steps[None]:
        run = yield from self.engine.when_room(lambda: self.engine.open(Prompt([1, 2])))
        try:
            yield from run.computing()
            for number in range(self.count):
                if number == self.fails_at:
                    raise ValueError("no")
                self.done += 1
                if number % 2:
                    yield {"step": number}
                yield from self.engine.when_room(lambda: run.append([5]))
                yield from run.computing()
        finally:
            self.closed = True
            self.engine.abandon(run)


LONG = 3000


@pytest.fixture
async def desk(tiny_service: ChatService) -> AsyncIterator[Desk]:
    desk = Desk(tiny_service)
    yield desk
    await desk.close()


async def test_bodies_come_in_order_and_nothing_else(desk: Desk) -> None:
    work = desk.work(Client().request, Reply(desk, 6).job)
    assert [body async for body in work] == [{"step": 1}, {"step": 3}, {"step": 5}]
    assert desk.in_flight == 0


async def test_a_reader_that_never_reads_holds_up_nobody(desk: Desk) -> None:
    unread, read = Reply(desk, 100), Reply(desk, 2)
    first = desk.work(Client().request, unread.job)
    second = desk.work(Client().request, read.job)
    assert [body async for body in second] == [{"step": 1}]
    while unread.done < 100:
        await asyncio.sleep(0.001)
    assert len([body async for body in first]) == 50


async def test_requests_are_worked_on_together(desk: Desk) -> None:
    replies = [Reply(desk, 40) for _ in range(4)]
    works = [desk.work(Client().request, reply.job) for reply in replies]
    await asyncio.gather(*(anext(aiter(work)) for work in works))
    assert desk.service.scheduler.num_running == 4
    await asyncio.gather(*(work.result() for work in works))
    assert [reply.done for reply in replies] == [40] * 4


async def test_more_than_fit_wait_for_their_turn(desk: Desk) -> None:
    config = desk.service.engine.config
    desk.service.engine.config = replace(config, max_batch=1)
    first, second = Reply(desk, LONG), Reply(desk, 2)
    work = desk.work(Client().request, first.job)
    await anext(aiter(work))
    behind = desk.work(Client().request, second.job)
    await asyncio.sleep(0.02)
    assert desk.service.scheduler.num_waiting == 1
    assert second.done == 0
    work.cancel()
    assert [body async for body in behind] == [{"step": 1}]
    assert first.closed


async def test_hanging_up_stops_after_the_pass_that_runs(desk: Desk) -> None:
    client, reply = Client(), Reply(desk, LONG)
    work = desk.work(client.request, reply.job)
    bodies = aiter(work)
    await anext(bodies)
    client.hang_up()
    async for _ in bodies:
        pass
    assert reply.closed
    assert reply.done < LONG
    engine = desk.service.engine
    with engine.exclusive():
        assert engine.pool.num_used == engine.forest.num_tokens


async def test_an_error_reaches_the_reader_and_frees_the_desk(desk: Desk) -> None:
    bodies = aiter(desk.work(Client().request, Reply(desk, 10, fails_at=4).job))
    assert [await anext(bodies), await anext(bodies)] == [{"step": 1}, {"step": 3}]
    with pytest.raises(ValueError, match="no"):
        await anext(bodies)
    assert desk.in_flight == 0
    assert await desk.call(Job.of(lambda: 7)) == 7


async def test_closing_stops_what_runs_and_what_waits(tiny_service: ChatService) -> None:
    tiny_service.engine.config = replace(tiny_service.engine.config, max_batch=1)
    desk = Desk(tiny_service)
    running, waiting = Reply(desk, LONG), Reply(desk, 1)
    work = desk.work(Client().request, running.job)
    desk.work(Client().request, waiting.job)
    await anext(aiter(work))
    await desk.close()
    assert running.closed
    assert running.done < LONG
    assert waiting.done == 0
