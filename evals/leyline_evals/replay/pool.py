"""Counting runs in several processes. Never with a model: runs would disturb each other's times."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from leyline_agent.policy import parse
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.memory import settle
from leyline_evals.replay.play import play
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.workload import Run

__all__ = ["pooled"]

# Reading stays this many runs a process ahead, so that none waits and memory stays bounded.
AHEAD = 3

_engines: Engines | None = None  # of a worker process; set once, when it starts


def pooled(
    runs: Iterable[Run], left: Callable[[Run], Sequence[Arm]], config: Config, jobs: int
) -> Iterator[tuple[Run, list[ArmRun]]]:
    """Every run in the arms `left` says, played by `jobs` processes; in the order of the runs."""
    waiting: deque[tuple[Run, Future[list[ArmRun]]]] = deque()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start, (config.model,)) as pool:
        try:
            for run in runs:
                waiting.append((run, pool.submit(_play, run, left(run), config)))
                if len(waiting) > AHEAD * jobs:
                    first, done = waiting.popleft()
                    yield first, done.result()
            while waiting:
                first, done = waiting.popleft()
                yield first, done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


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
