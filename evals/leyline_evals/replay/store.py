"""The file beside a report: what was done so far, one line a (run, arm), so that a replay resumes.

The first line says what was replayed how; a line is written when a run is through, so a killed
replay loses at most the run it was at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leyline_evals.replay.arms import Arm
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.workload import Run

__all__ = ["Header", "Store"]

M = TypeVar("M", bound=BaseModel)


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
        self._path = path
        self._done: dict[tuple[str, int, Arm], ArmRun] = {}
        if path is None:
            return
        if resume and path.exists():
            self._done = {(r.file, r.number, r.arm): r for r in _read(path, config)}
        self._write("w", [Header(config=config), *self._done.values()])

    def __len__(self) -> int:
        return len(self._done)

    def find(self, run: Run, arm: Arm) -> ArmRun | None:
        """What is known of a run in an arm."""
        return self._done.get((run.file, run.number, arm))

    def add(self, results: Iterable[ArmRun]) -> None:
        """Keep finished pairs; on disk before this returns."""
        found = list(results)
        self._done.update({(r.file, r.number, r.arm): r for r in found})
        if self._path is not None:
            self._write("a", found)

    def _write(self, how: Literal["w", "a"], lines: Iterable[BaseModel]) -> None:
        assert self._path is not None
        try:
            with self._path.open(how, encoding="utf-8") as file:
                for line in lines:
                    file.write(line.model_dump_json(exclude_defaults=_is_run(line)) + "\n")
        except OSError as error:
            raise ReplayError(
                f"{self._path}: cannot be written: {error.strerror}; name another file with --json"
            ) from error


def _is_run(line: BaseModel) -> bool:
    """Runs are written without their zeros; a header is written whole."""
    return isinstance(line, ArmRun)


def _read(path: Path, config: Config) -> Iterator[ArmRun]:
    """The finished pairs of a file; a last line cut off by a kill is left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ReplayError(f"{path}: cannot be read ({error}); replay without --resume") from error
    if _parsed(Header, lines[0], path, 1).config != config:
        raise ReplayError(
            f"{path} holds a replay with other options; resume it with the same ones, or replay "
            "without --resume to start anew"
        )
    complete = lines[1:-1]  # behind the last line break stands nothing, or half a line
    for number, line in enumerate(complete, start=2):
        yield _parsed(ArmRun, line, path, number)


def _parsed(kind: type[M], line: str, path: Path, number: int) -> M:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise ReplayError(
            f"{path}, line {number}: not of a replay ({error.error_count()} problems); replay "
            "without --resume to start anew"
        ) from error
