"""The engine's thread: its work runs there, step after step, and no event loop waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
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

    def close(self) -> None:
        """Wait for the step that runs now; nothing can be run afterwards."""
        self._executor.shutdown()
