"""Counting runs in several processes. Never with a model: runs would disturb each other's times."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Self

from leyline_agent.policy import parse
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.memory import settle
from leyline_evals.replay.play import play
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.workload import Run

__all__ = ["Workers"]

# Reading stays this many runs a process ahead, so that none waits and memory stays bounded.
AHEAD = 3

_engines: Engines | None = None  # of a worker process; set once, when it starts


class Workers:
    """Processes that count runs, for one replay or for several in turn.

    They start with the first run, and remember between replays what they tokenized.

    Args:
        model: whose tokenizer they count with.
        jobs: how many.
    """

    def __init__(self, model: str, jobs: int) -> None:
        self.jobs = jobs
        self._model = model
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def play(
        self, runs: Iterable[Run], left: Callable[[Run], Sequence[Arm]], config: Config
    ) -> Iterator[tuple[Run, list[ArmRun]]]:
        """Every run in the arms `left` says, in the order of the runs."""
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, context, _start, (self._model,))
        waiting: deque[tuple[Run, Future[list[ArmRun]]]] = deque()
        try:
            for run in runs:
                waiting.append((run, self._pool.submit(_play, run, left(run), config)))
                if len(waiting) > AHEAD * self.jobs:
                    first, done = waiting.popleft()
                    yield first, done.result()
            while waiting:
                first, done = waiting.popleft()
                yield first, done.result()
        finally:
            for _, future in waiting:
                future.cancel()


def _start(model: str) -> None:
    global _engines
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that keeps the runs
    _engines = Engines.load(model, tokens_only=True)
    settle()
    atexit.register(gc.unfreeze)  # what stays frozen at the end, compiled modules report as leaks


def _play(run: Run, arms: Sequence[Arm], config: Config) -> list[ArmRun]:
    assert _engines is not None
    if not arms:
        return []
    policy = parse(config.policy)
    return play(run, arms, policy, _engines, max_turns=config.max_turns, fulfil=config.fulfil)
