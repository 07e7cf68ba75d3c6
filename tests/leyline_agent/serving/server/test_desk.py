"""The desk: order, slow readers, hanging up, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from fastapi import Request

from leyline_agent.serving.chat import ChatService, Step
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


class Steps:
    """A request of `count` steps, which remembers how far it came."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count = count
        self.fails_at = fails_at
        self.done = 0
        self.closed = False

    def __call__(self) -> Generator[Step, None, None]:
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    raise ValueError("no")
                self.done += 1
                yield {"step": number} if number % 2 else None
        finally:
            self.closed = True


@pytest.fixture
async def desk(tiny_service: ChatService) -> AsyncIterator[Desk]:
    desk = Desk(tiny_service)
    yield desk
    await desk.close()


async def test_bodies_come_in_order_and_nothing_else(desk: Desk) -> None:
    work = desk.work(Client().request, Steps(6)())
    assert [body async for body in work] == [{"step": 1}, {"step": 3}, {"step": 5}]
    await work.task
    await asyncio.sleep(0)
    assert desk.in_flight == 0


async def test_a_reader_that_never_reads_holds_up_nobody(desk: Desk) -> None:
    unread, read = Steps(100), Steps(2)
    first = desk.work(Client().request, unread())
    second = desk.work(Client().request, read())
    assert [body async for body in second] == [{"step": 1}]
    assert unread.done == 100
    assert len([body async for body in first]) == 50


async def test_first_come_first_served(desk: Desk) -> None:
    order: list[int] = []

    def steps(number: int) -> Generator[Step, None, None]:
        for _ in range(3):
            order.append(number)
            yield None

    works = [desk.work(Client().request, steps(number)) for number in range(4)]
    await asyncio.gather(*(work.task for work in works))
    assert order == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_hanging_up_stops_after_the_step_that_runs(desk: Desk) -> None:
    client, steps = Client(), Steps(1_000_000)
    work = desk.work(client.request, steps())
    bodies = aiter(work)
    await anext(bodies)
    client.hang_up()
    async for _ in bodies:
        pass
    await desk.call(lambda: None)  # behind whatever the thread still had to do
    assert steps.closed
    assert steps.done < 1_000_000


async def test_hanging_up_while_waiting_never_begins(desk: Desk) -> None:
    busy, waiting, client = Steps(1_000_000), Steps(1), Client()
    first = desk.work(Client().request, busy())
    second = desk.work(client.request, waiting())
    await anext(aiter(first))
    client.hang_up()
    assert [body async for body in second] == []
    assert waiting.done == 0
    first.cancel()
    await desk.call(lambda: None)
    assert busy.closed


async def test_an_error_reaches_the_reader_and_frees_the_desk(desk: Desk) -> None:
    steps = Steps(10, fails_at=4)
    bodies = aiter(desk.work(Client().request, steps()))
    assert [await anext(bodies), await anext(bodies)] == [{"step": 1}, {"step": 3}]
    with pytest.raises(ValueError, match="no"):
        await anext(bodies)
    assert await desk.call(lambda: 7) == 7


async def test_closing_stops_what_runs_and_what_waits(tiny_service: ChatService) -> None:
    desk = Desk(tiny_service)
    running, waiting = Steps(1_000_000), Steps(1)
    work = desk.work(Client().request, running())
    desk.work(Client().request, waiting())
    await anext(aiter(work))
    await desk.close()
    assert running.closed
    assert running.done < 1_000_000
    assert waiting.done == 0
