"""A whole replay: the workload through every arm, into a report."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from leyline_agent._version import __version__
from leyline_agent.policy import Policy, parse
from leyline_evals.replay import totals
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.play import play
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.report import Machine, ReplayReport, SkippedRecord
from leyline_evals.replay.store import Store
from leyline_evals.replay.workload import Run, Workload

__all__ = ["Played", "Progress", "Silent", "replay"]


class Progress(Protocol):
    """Is told how far a replay is."""

    def run(self, run: Run, number: int) -> None:
        """A run begins; `number` from 1."""
        ...

    def turn(self, done: int, of: int) -> None:
        """Turns of this run done."""
        ...


class Silent:
    """Tells nobody."""

    def run(self, run: Run, number: int) -> None:
        """A run begins."""

    def turn(self, done: int, of: int) -> None:
        """Turns of this run done."""


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
    progress: Progress | None = None,
) -> Played:
    """Replay every run of a workload in every arm.

    Args:
        workload: the runs.
        config: the policy and how much of each run.
        engines: what serves them; `config` says what they were loaded as.
        arms: at least one.
        keep: a file that finished runs are written to (`store.beside`).
        resume: go on with what `keep` holds.
        progress: is told how far it is.

    Raises:
        PolicyError: there is no such policy.
        TrajectoryError: a file cannot be read, or holds nothing to replay.
        ReplayError: `keep` cannot be written, or is of another replay.
    """
    policy = parse(config.policy)
    if not arms:
        raise ReplayError("no arms to replay")
    told = progress or Silent()
    store = Store(keep, config, resume=resume)
    started = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    engines.warm_up()
    results = []
    for number, run in enumerate(workload, start=1):
        told.run(run, number)
        results.append(_one(run, arms, policy, config, engines, store, told))
    made = totals.figures(results)
    report = ReplayReport(
        leyline=__version__,
        config=config,
        machine=_machine(engines, load),
        seconds=round(time.perf_counter() - started, 2),
        runs=[totals.summary(run) for run in results],
        skipped=[SkippedRecord(**asdict(one)) for one in workload.skipped],
        arms=made,
        sooner_than=totals.rival(arms),
        fidelity=totals.fidelity(results),
        problems=totals.problems(made),
        notes=totals.notes(results, made),
    )
    return Played(report, results)


def _one(
    run: Run,
    arms: Sequence[Arm],
    policy: Policy,
    config: Config,
    engines: Engines,
    store: Store,
    told: Progress,
) -> dict[Arm, ArmRun]:
    """One run in every arm; arms that the store knows are not played again."""
    known = {arm: store.find(run, arm) for arm in arms}
    left = [arm for arm, found in known.items() if found is None]
    if left:
        played = play(
            run,
            left,
            policy,
            engines,
            max_turns=config.max_turns,
            fidelity_turns=config.fidelity_turns,
            on_turn=told.turn,
        )
        store.add(played)
        known.update(zip(left, played, strict=True))
        if engines.model is not None:
            gc.collect()  # services and engines know each other; their KV is large
    return {arm: found for arm, found in known.items() if found is not None}


def _machine(engines: Engines, load: float | None) -> Machine:
    return Machine(
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        dtype=engines.dtype,
        load_at_start=load,
    )


def _cpu() -> str:
    """The processor's name, as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
