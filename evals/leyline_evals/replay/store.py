"""The file beside a report: what was done so far, one line a (run, arm), so that a replay resumes.

The first line says what was replayed how; a line is written when a run is through, so a killed
replay loses at most the run it was at.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from leyline_evals.lines import Lines
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.workload import Run

__all__ = ["Header", "Store"]


class Header(BaseModel):
    """The first line."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["leyline-replay-runs"] = "leyline-replay-runs"
    version: Literal[1] = 1
    config: Config


class Store:
    """Finished (run, arm) pairs, in a file or in memory only.

    Args:
        path: the file; None to keep nothing.
        config: what is replayed.
        resume: go on with what the file holds; otherwise it is written anew.

    Raises:
        ReplayError: the file cannot be read or written, or is of another replay.
    """

    def __init__(self, path: Path | None, config: Config, *, resume: bool = False) -> None:
        self._lines: Lines | None = None
        self._done: dict[tuple[str, int, Arm], ArmRun] = {}
        if path is None:
            return
        again = "replay without --resume to start anew"
        self._lines = Lines(path, "a replay", ReplayError, again)
        if resume and path.exists():
            self._done = {(r.file, r.number, r.arm): r for r in _held(self._lines, config)}
        self._lines.begin(Header(config=config), self._done.values())

    def __len__(self) -> int:
        return len(self._done)

    def find(self, run: Run, arm: Arm) -> ArmRun | None:
        """What is known of a run in an arm."""
        return self._done.get((run.file, run.number, arm))

    def add(self, results: Iterable[ArmRun]) -> None:
        """Keep finished pairs; on disk before this returns."""
        found = list(results)
        self._done.update({(r.file, r.number, r.arm): r for r in found})
        if self._lines is not None and found:
            self._lines.add(found)


def _held(lines: Lines, config: Config) -> list[ArmRun]:
    header, runs = lines.read(Header, ArmRun)
    if header.config != config:
        raise ReplayError(
            f"{lines.path} holds a replay with other options; resume it with the same ones, or "
            "replay without --resume to start anew"
        )
    return runs
