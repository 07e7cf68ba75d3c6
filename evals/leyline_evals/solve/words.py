"""What runs say in sentences, the same on the terminal, in the page and in the docs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from leyline_evals.solve.config import Registration, RunConfig
from leyline_evals.solve.runner import Sat

__all__ = ["plan", "sat", "seen"]


def plan(config: RunConfig) -> Iterator[str]:
    """What is going to be run, and what it can show."""
    counted = f"{len(config.tasks)} tasks x {len(config.seeds)} seeds x {len(config.arms)} arms"
    yield f"{config.driver.name}: {counted}, {config.size} episodes; model {config.model.name}"
    for arm in config.arms:
        yield f"  {arm.name}"
    registered = config.registration
    if registered is None:
        yield "One arm: its rate is measured, and compared to nothing. --policy adds arms."
        return
    yield f"Primary comparison: {registered.second} against {registered.first}."
    yield seen(len(config.tasks), len(config.seeds), registered)
    yield f"Registered as sha256 {config.digest}."


def seen(tasks: int, seeds: int, registered: Registration) -> str:
    """The difference that a plan can see."""
    shape = f"With {tasks} task{'s' * (tasks > 1)} x {seeds} seed{'s' * (seeds > 1)}"
    given = (
        f"{registered.power:.0%} of the time, at the level {registered.alpha:g}, if about "
        f"{registered.rate:.0%} are solved and episodes of a task correlate by {registered.icc:g}"
    )
    if registered.detectable is None:
        if 2 * 0.5**tasks > registered.alpha:
            why = f"the exact test of {tasks} tasks is never below {2 * 0.5**tasks:.3g}"
            return f"{shape} no difference can be seen, however large: {why}. Add tasks."
        return f"{shape} no difference is seen ({given}). Add tasks."
    points = registered.detectable * 100
    return f"{shape} you can see differences above {points:.0f} points ({given})."


def sat(path: Path, episodes: int, what: Sat) -> Iterator[str]:
    """What a sitting did, and what to do next."""
    yield f"{what.done} episodes done in this sitting; {episodes - what.left} of {episodes} count."
    if what.errors:
        yield (
            f"{what.errors} ended in an error and count for nothing; error.txt in their folders "
            "says why, and --retry-errors runs them again."
        )
    if what.left > what.errors:
        yield f"Go on: leyline eval resume {path}"
    yield f"Report: leyline eval report {path}"
