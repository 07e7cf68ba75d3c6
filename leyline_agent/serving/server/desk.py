"""The desk: requests in order of arrival, worked on together by the engine's thread.

A request that is worked on fills a buffer, so a client that reads slowly holds up nobody. A client
that hangs up, waiting or served, takes its request with it: the pass that runs now is its last.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.scheduler import Job
from leyline_agent.serving.thread import AsyncTask, EngineThread

__all__ = ["Desk", "TheDesk"]

T = TypeVar("T")


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
        self._thread = EngineThread(service.scheduler)
        self._work: dict[AsyncTask[Any], asyncio.Task[None]] = {}

    @property
    def in_flight(self) -> int:
        """How many completions are being worked on or wait for their turn."""
        return len(self._work)

    def work(self, request: Request, job: Job[T]) -> AsyncTask[T]:
        """Begin to work on a request; its client is watched, and takes it along on hanging up."""
        task = self._thread.submit(job, lambda: self._work.pop(task).cancel())
        self._work[task] = asyncio.create_task(_watch(request, task))
        return task

    async def call(self, job: Job[T]) -> T:
        """What a short job returns."""
        return await self._thread.call(job)

    async def close(self) -> None:
        """Stop; work that runs ends with the pass that runs now."""
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*(task.result() for task in work), return_exceptions=True)


async def _watch(request: Request, task: AsyncTask[Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    task.cancel()


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


TheDesk = Annotated[Desk, Depends(_desk)]
