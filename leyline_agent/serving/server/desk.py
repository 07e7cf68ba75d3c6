"""The desk: requests in order of arrival, one at a time, on the engine's thread.

A request that is worked on fills a buffer, so a client that reads slowly holds up nobody. A client
that hangs up, waiting or served, takes its request with it: the step that runs now is the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from leyline_agent.serving.chat import ChatService, Step
from leyline_agent.serving.thread import EngineThread

__all__ = ["Desk", "TheDesk", "Work"]

T = TypeVar("T")
Body = dict[str, Any]


class Desk:
    """Where requests are taken in.

    Args:
        service: what answers them.

    Attributes:
        tree_tokens: canonical tokens cached when the engine was last seen idle.
    """

    def __init__(self, service: ChatService) -> None:
        self.service = service
        self.tree_tokens = 0
        self._thread = EngineThread()
        self._turn = asyncio.Lock()  # first come, first served
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """How many completions are being worked on or wait for their turn."""
        return len(self._tasks)

    def work(self, request: Request, steps: Generator[Step, None, None]) -> Work:
        """Begin to work on a request's steps as soon as it is its turn."""
        work = Work(self._in_turn(steps), request)
        self._tasks.add(work.task)
        work.task.add_done_callback(self._tasks.discard)
        return work

    async def call(self, function: Callable[[], T]) -> T:
        """What a short function returns, called in its turn."""
        async with self._turn:
            return await self._thread.call(function)

    async def close(self) -> None:
        """Stop; work that runs ends with its current step."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.close()

    async def _in_turn(self, steps: Generator[Step, None, None]) -> AsyncGenerator[Step, None]:
        async with self._turn, aclosing(self._thread.iterate(steps)) as bodies:
            async for body in bodies:
                yield body


class Work:
    """A request being worked on. Iterates over its bodies, whenever they are ready.

    Raises, at the first body or in between, whatever the service raises.

    Args:
        steps: what to do.
        request: whose client is watched.
    """

    def __init__(self, steps: AsyncGenerator[Step, None], request: Request) -> None:
        self._bodies: asyncio.Queue[Body | Exception | None] = asyncio.Queue()
        self.task = asyncio.create_task(self._run(steps))
        watcher = asyncio.create_task(self._watch(request))
        self.task.add_done_callback(lambda _: watcher.cancel())

    async def __aiter__(self) -> AsyncIterator[Body]:
        while (body := await self._bodies.get()) is not None:
            if isinstance(body, Exception):
                raise body
            yield body

    def cancel(self) -> None:
        """Nobody wants it any more. Harmless when it is done."""
        self.task.cancel()

    async def _run(self, steps: AsyncGenerator[Step, None]) -> None:
        try:
            async with aclosing(steps):
                async for body in steps:
                    if body is not None:
                        self._bodies.put_nowait(body)
        except Exception as error:  # whoever iterates raises it
            self._bodies.put_nowait(error)
        finally:
            self._bodies.put_nowait(None)

    async def _watch(self, request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.cancel()


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(_desk)]
