"""A thread that drives the scheduler while there is something to do, and its jobs in event loops.

One thread, not a pool: what can be computed at once is computed together anyway, and torch keeps a
team of helpers for each thread that calls it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from leyline_agent.serving.scheduler import Job, Scheduler

__all__ = ["AsyncTask", "EngineThread"]

T = TypeVar("T")

_END = object()


class EngineThread:
    """Drives a scheduler. The thread begins with a job and ends when all are done."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self._lock = threading.Lock()
        self._alive = False

    def submit(self, job: Job[T], ended: Callable[[], object] = lambda: None) -> AsyncTask[T]:
        """Begin a job as soon as it is its turn. `ended` is called in the event loop."""
        task = AsyncTask(self.scheduler, job, ended)
        with self._lock:
            if not self._alive:
                self._alive = True
                threading.Thread(target=self._drive, name="leyline-engine", daemon=True).start()
        return task

    async def call(self, job: Job[T]) -> T:
        """What a job returns; cancelled, it stops."""
        task = self.submit(job)
        try:
            return await task.result()
        finally:
            task.cancel()

    def _drive(self) -> None:
        while True:
            self.scheduler.drive(lambda: self.scheduler.idle)
            with self._lock:
                if self.scheduler.idle:
                    self._alive = False
                    return


class AsyncTask(Generic[T]):
    """A job seen from an event loop: iterate over what it sends; `result` waits for its end."""

    def __init__(self, scheduler: Scheduler, job: Job[T], ended: Callable[[], object]) -> None:
        self._scheduler = scheduler
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._bodies: asyncio.Queue[Any] = asyncio.Queue()
        self._task = scheduler.submit(job, self._tell, lambda: self._tell(_END))

    async def __aiter__(self) -> AsyncIterator[Any]:
        """What the job sends, whenever it is ready. Raises what the job raises."""
        while (body := await self._bodies.get()) is not _END:
            yield body
        self._bodies.put_nowait(_END)  # for whoever asks again
        self._task.result()

    async def result(self) -> T:
        """What the job returns. Raises what it raises."""
        async for _ in self:
            pass
        return self._task.result()

    def cancel(self) -> None:
        """Nobody wants it any more. Harmless when it is done."""
        self._scheduler.cancel(self._task)

    def _tell(self, body: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody listens
            self._loop.call_soon_threadsafe(self._put, body)

    def _put(self, body: Any) -> None:
        self._bodies.put_nowait(body)
        if body is _END:
            self._ended()
