"""A whole load: every concurrency, every arm, into a report."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from leyline_agent._version import __version__
from leyline_agent.policy import parse
from leyline_evals.load.engine import Targets
from leyline_evals.load.player import Played, play
from leyline_evals.load.report import LoadConfig, LoadReport, Point, points, problems
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.fulfil import fulfiller
from leyline_evals.replay.report import SkippedRecord
from leyline_evals.replay.runner import machine
from leyline_evals.replay.workload import Run, Skipped

__all__ = ["Load"]

OnTurn = Callable[[int, Arm], None]


class Load:
    """Puts conversations on an engine, at one concurrency after the other.

    Args:
        runs: the conversations.
        config: says what edits them.
        targets: makes the engine of an arm.
        arms: in this order, each time.
        engines: the model that runs in this process; None where none does.

    Attributes:
        problems: filled while iterating.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        config: LoadConfig,
        targets: Targets,
        arms: Sequence[Arm],
        engines: Engines | None,
    ) -> None:
        self.problems: list[str] = []
        self._runs = runs
        self._config = config
        self._targets = targets
        self._arms = arms
        self._engines = engines
        self._points: list[Point] = []
        self._played_arms = 0
        self._started = time.perf_counter()
        self._load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    def points(self, concurrencies: Sequence[int], on_turn: OnTurn) -> Iterator[Point]:
        """Play everything; the figures of a concurrency come when all its arms are through.

        Raises:
            PolicyError: there is no such policy.
            ReplayError: the policy wants a model asked, and nobody answers.
        """
        for concurrency in concurrencies:
            played = {arm: self._played(arm, concurrency, on_turn) for arm in self._arms}
            self.problems += problems(concurrency, played)
            made = points(concurrency, played)
            self._points += made
            yield from made

    def _played(self, arm: Arm, concurrency: int, on_turn: OnTurn) -> Played:
        self._played_arms += 1
        mark = f"{self._played_arms:04d}"
        if self._engines is None:
            # A server may still hold what an earlier arm or replay sent: no two begin alike.
            mark += f"-{secrets.token_hex(4)}"
        return play(
            self._runs,
            arm,
            parse(self._config.policy),
            self._targets(arm),
            concurrency=concurrency,
            mark=mark,
            fulfil=fulfiller(self._config.fulfil),
            max_turns=self._config.max_turns,
            on_turn=lambda: on_turn(concurrency, arm),
        )

    def report(self, skipped: Sequence[Skipped] = ()) -> LoadReport:
        """What was played so far."""
        return LoadReport(
            leyline=__version__,
            config=self._config,
            machine=machine(self._engines, self._load),
            seconds=round(time.perf_counter() - self._started, 2),
            conversations=len(self._runs),
            points=self._points,
            skipped=[SkippedRecord(**asdict(one)) for one in skipped],
            problems=self.problems,
        )
