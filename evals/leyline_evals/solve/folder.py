"""A run is a folder.

    run.json            the config, its digest, when it was made and by which Leyline
    sittings.jsonl      a line at the start of each sitting: versions, machine, workers
    episodes.jsonl      a line an episode that is finished; nothing else counts
    episodes/ARM/TASK/SEED/
        steps.jsonl     a line a reply of the model
        journal.jsonl   the session's journal (docs/journal.md)
        patch.diff, error.txt, and what the driver keeps

A row is on disk before the next episode begins. What a killed sitting left half done has no row: it
is thrown away and run again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from leyline_agent._version import __version__
from leyline_evals.solve.config import Cell, RunConfig, cells, digest_of
from leyline_evals.solve.errors import CorruptRun, EvalError
from leyline_evals.solve.rows import EpisodeRow, Key

__all__ = ["RunFile", "RunFolder", "Sitting", "now"]

CONFIG, SITTINGS, EPISODES = "run.json", "sittings.jsonl", "episodes.jsonl"
AGAIN = "; repair it from a copy, or run anew in another folder"

M = TypeVar("M", bound=BaseModel)


class RunFile(BaseModel):
    """What `run.json` holds. `sha256` is of the config: the registration cannot change unseen."""

    format: Literal["leyline-eval"] = "leyline-eval"
    version: Literal[1] = 1
    leyline: str = __version__
    created: str
    sha256: str
    config: RunConfig


class Sitting(BaseModel):
    """One sitting, as it began."""

    number: int = Field(ge=1)
    started: str
    workers: int = Field(ge=1)
    versions: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, str] = Field(default_factory=dict)


class RunFolder:
    """A run's folder. Made by `create` or `open`.

    Attributes:
        path: the folder.
        file: what `run.json` holds.
    """

    def __init__(self, path: Path, file: RunFile) -> None:
        self.path = path
        self.file = file

    @property
    def config(self) -> RunConfig:
        """What the run is."""
        return self.file.config

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> RunFolder:
        """Write a run's config down.

        Raises:
            EvalError: there is a run already, or something else, or it cannot be written.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise EvalError(f"{path} is not an empty folder; name another with --out")
        file = RunFile(created=now(), sha256=config.digest, config=config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            _replace(path / CONFIG, file.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise EvalError(f"{path}: cannot be written: {error.strerror}") from error
        return cls(path, file)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run of a folder.

        Raises:
            EvalError: there is none.
            CorruptRun: its config is damaged, or was changed after it was registered.
        """
        file = path / CONFIG
        if not file.is_file():
            raise EvalError(f"{path} holds no run: there is no {CONFIG} in it")
        text = _text(file)
        found = _parsed(RunFile, text, f"{file}")
        # As it is written: a later Leyline's config may have more fields.
        if digest_of(json.loads(text)["config"]) != found.sha256:
            raise CorruptRun(
                f"{file}: the config is not the one that was registered (sha256 "
                f"{found.sha256[:12]}...): it was changed afterwards{AGAIN}"
            )
        return cls(path, found)

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether a folder holds a run."""
        return (path / CONFIG).is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the system lets go of it when this process ends, however it does.

        Raises:
            EvalError: another process holds it.
        """
        from filelock import FileLock, Timeout

        lock, owner = FileLock(self.path / "lock"), self.path / "owner"
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "unknown"
            raise EvalError(
                f"{self.path} is being run by another process ({who}); wait for it, or end it"
            ) from error
        try:
            owner.write_text(f"pid {os.getpid()} since {now()}\n", encoding="utf-8")
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def sittings(self) -> list[Sitting]:
        """The sittings so far."""
        return list(self._lines(Sitting, self.path / SITTINGS))

    def sit(self, sitting: Sitting) -> None:
        """Write a sitting down, and put in order what a killed one left. Needs the lock."""
        for name in (SITTINGS, EPISODES):
            _cut_half_line(self.path / name)
        self._append(self.path / SITTINGS, sitting)

    def rows(self) -> dict[Key, EpisodeRow]:
        """The finished episodes; of several attempts the last. A cut-off last line is left out.

        Raises:
            CorruptRun: a line is damaged, counts an episode twice, or is of another run.
        """
        planned = {(c.arm.name, c.task, c.seed) for c in cells(self.config)}
        found: dict[Key, EpisodeRow] = {}
        path = self.path / EPISODES
        for number, row in enumerate(self._lines(EpisodeRow, path), start=1):
            if row.key not in planned:
                raise CorruptRun(f"{path}, line {number}: not of this run's plan{AGAIN}")
            if row.key in found and found[row.key].counts:
                raise CorruptRun(f"{path}, line {number}: this episode stands there twice{AGAIN}")
            found[row.key] = row
        return found

    def add(self, row: EpisodeRow) -> None:
        """Count an episode; on disk when this returns."""
        self._append(self.path / EPISODES, row)

    def episode(self, cell: Cell) -> Path:
        """An episode's folder."""
        task = re.sub(r"[^A-Za-z0-9_=.-]+", "-", cell.task)[:80].strip("-.")
        if task != cell.task:
            task = f"{task}-{sha256(cell.task.encode()).hexdigest()[:6]}"
        return self.path / "episodes" / cell.arm.slug / task / str(cell.seed)

    def begin(self, cell: Cell, failed: int) -> Path:
        """An empty folder for an episode; what is there of a failed attempt is kept beside it.

        Args:
            cell: which.
            failed: attempts that ended in an error; what is there of a later one was left half
                done.

        Raises:
            EvalError: it cannot be made.
        """
        path = self.episode(cell)
        beside = path.with_name(f"{path.name}.failed-{failed}")
        try:
            if path.exists() and failed and not beside.exists():
                path.rename(beside)
            elif path.exists():
                shutil.rmtree(path)
            path.mkdir(parents=True)
        except OSError as error:
            raise EvalError(f"{path}: cannot be made anew: {error.strerror}") from error
        return path

    def _lines(self, kind: type[M], path: Path) -> Iterator[M]:
        """The lines of a file; behind the last line break stands nothing, or half a line."""
        if not path.exists():
            return
        for number, line in enumerate(_text(path).split("\n")[:-1], start=1):
            yield _parsed(kind, line, f"{path}, line {number}")

    def _append(self, path: Path, line: BaseModel) -> None:
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line.model_dump_json(exclude_defaults=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EvalError(f"{path}: cannot be written: {error.strerror}") from error


def now() -> str:
    """The time, as it is written down."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _parsed(kind: type[M], text: str, where: str) -> M:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        told = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise CorruptRun(f"{where}: not what a run writes ({told}){AGAIN}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptRun(f"{path}: cannot be read: {error}{AGAIN}") from error


def _replace(path: Path, text: str) -> None:
    """A file whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _cut_half_line(path: Path) -> None:
    """Drop what a kill left behind the last line break, so that the next line begins afresh."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        held = file.read()
        file.truncate(held.rfind(b"\n") + 1)
