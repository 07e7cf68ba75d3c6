"""The engine's thread: its work runs there, step after step, and no event loop waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

__all__ = ["EngineThread"]

T = TypeVar("T")


class EngineThread:
    """Runs functions and generators on one thread, in order of arrival.

    One thread, not a pool: torch keeps a team of helpers for each thread that calls it.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="leyline-engine")

    async def call(self, function: Callable[[], T]) -> T:
        """What the function returns. Cancelled before its turn, it does not run."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)

    async def iterate(self, steps: Generator[T, None, None]) -> AsyncGenerator[T, None]:
        """The items of a generator; whoever stops early closes it, on the thread, in its turn.

        A step that runs when the consumer is cancelled runs to its end, and no other begins.
        """
        end = object()
        try:
            while (item := await self.call(lambda: next(steps, end))) is not end:
                yield item  # type: ignore[misc]
        finally:
            self._executor.submit(steps.close)

    async def drain(self, steps: Generator[T, None, None]) -> T | None:
        """The last item of a generator, taken at one go; None when there is none.

        Whoever stops waiting stops it after the step that runs.
        """
        gone = threading.Event()

        def run() -> T | None:
            last = None
            with closing(steps):
                for item in steps:
                    last = item
                    if gone.is_set():
                        break
            return last

        try:
            return await self.call(run)
        finally:
            gone.set()

    def close(self) -> None:
        """Wait for the step that runs now; nothing can be run afterwards."""
        self._executor.shutdown()
