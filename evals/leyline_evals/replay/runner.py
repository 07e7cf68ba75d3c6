"""A whole replay: the workload through every arm, into a report."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from leyline_agent._version import __version__
from leyline_agent.policy import parse
from leyline_evals.replay import totals
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.fulfil import fulfiller
from leyline_evals.replay.memory import settled_memory
from leyline_evals.replay.play import play
from leyline_evals.replay.pool import Workers
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.report import Machine, ReplayReport, SkippedRecord
from leyline_evals.replay.store import Store
from leyline_evals.replay.workload import Run, Workload

__all__ = ["Played", "Progress", "Silent", "machine", "replay"]

# Starting processes takes as long as counting a few runs.
WORTH_A_POOL = 8


class Progress(Protocol):
    """Is told how far a replay is."""

    def turn(self, run: Run, done: int, of: int) -> None:
        """Turns of a run done."""
        ...

    def run(self, run: Run, number: int) -> None:
        """A run is through; `number` of them are."""
        ...


class Silent:
    """Tells nobody."""

    def turn(self, run: Run, done: int, of: int) -> None:
        """Turns of a run done."""

    def run(self, run: Run, number: int) -> None:
        """A run is through."""


@dataclass
class Played:
    """A finished replay.

    Attributes:
        report: the figures.
        results: every run's rows, by arm.
    """

    report: ReplayReport
    results: list[dict[Arm, ArmRun]] = field(repr=False)


def replay(
    workload: Workload,
    config: Config,
    engines: Engines,
    *,
    arms: Sequence[Arm] = ALL_ARMS,
    keep: Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> Played:
    """Replay every run of a workload in every arm.

    Args:
        workload: the runs.
        config: the policy, and how much of each run.
        engines: what serves them, loaded as `config` says.
        arms: at least one.
        keep: a file that finished runs are written to (`outputs.beside`).
        resume: go on with what `keep` holds.
        jobs: processes, where only tokens are counted.
        workers: processes that other replays use, too, in place of so many of its own.
        progress: is told how far it is.

    Raises:
        PolicyError: there is no such policy.
        TrajectoryError: a file cannot be read, or holds nothing to replay.
        ReplayError: `keep` cannot be written, or is of another replay.
    """
    parse(config.policy)
    fulfiller(config.fulfil)
    if not arms:
        raise ReplayError("no arms to replay")
    store = Store(keep, config, resume=resume)
    started = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    own = Workers(config.model, 1 if engines.model is not None else jobs)
    with settled_memory(), own:
        whole = _Replay(config, engines, arms, store, progress or Silent())
        results = whole.results(workload, workers or own)
    made = totals.figures(results)
    report = ReplayReport(
        leyline=__version__,
        config=config,
        machine=machine(engines, load),
        seconds=round(time.perf_counter() - started, 2),
        runs=[totals.summary(run) for run in results],
        skipped=[SkippedRecord(**asdict(one)) for one in workload.skipped],
        arms=made,
        sooner_than=totals.rival(arms),
        fidelity=totals.fidelity(results),
        problems=totals.problems(results, made),
        notes=totals.notes(results, made),
    )
    return Played(report, results)


@dataclass
class _Replay:
    config: Config
    engines: Engines
    arms: Sequence[Arm]
    store: Store
    progress: Progress

    def results(self, workload: Workload, workers: Workers) -> list[dict[Arm, ArmRun]]:
        """Every run's results, those the store knows among them."""
        runs = iter(workload)
        first = list(itertools.islice(runs, WORTH_A_POOL))
        pool = workers.jobs > 1 and len(first) == WORTH_A_POOL
        every = itertools.chain(first, runs)
        counted = workers.play(every, self._left, self.config) if pool else self._one_by_one(every)
        found = []
        for run, played in counted:
            self.store.add(played)
            known = {arm: self.store.find(run, arm) for arm in self.arms}
            found.append({arm: result for arm, result in known.items() if result is not None})
            self.progress.run(run, len(found))
        return found

    def _left(self, run: Run) -> list[Arm]:
        """The arms this run is still to be played in."""
        return [arm for arm in self.arms if self.store.find(run, arm) is None]

    def _one_by_one(self, runs: Iterable[Run]) -> Iterator[tuple[Run, list[ArmRun]]]:
        self.engines.warm_up()
        for run in runs:
            left = self._left(run)
            yield run, self._play(run, left) if left else []
            if left and self.engines.model is not None:
                gc.collect()  # services and engines know each other, and their KV is large

    def _play(self, run: Run, arms: Sequence[Arm]) -> list[ArmRun]:
        return play(
            run,
            arms,
            parse(self.config.policy),
            self.engines,
            max_turns=self.config.max_turns,
            fidelity_turns=self.config.fidelity_turns,
            fulfil=self.config.fulfil,
            on_turn=lambda done, of: self.progress.turn(run, done, of),
        )


def machine(engines: Engines | None, load: float | None) -> Machine:
    """What a replay runs on; `load` is the machine's when it began."""
    return Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        dtype=engines.dtype if engines else "",
        load_at_start=load,
    )


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
