"""The file of a measurement: a line an edit, so that a killed one goes on where it was."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.records import Config, EditRow

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["Header", "Store", "beside", "read_rows"]

M = TypeVar("M", bound=BaseModel)


class Header(BaseModel):
    """The first line.

    Attributes:
        fingerprint: of the model measured (`serving.fidelity.fingerprint`).
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["leyline-fidelity-edits"] = "leyline-fidelity-edits"
    version: Literal[1] = 1
    fingerprint: str
    config: Config


def beside(report: Path) -> Path:
    """Where the edits of a report are kept: `out.json` has them in `out.edits.jsonl`."""
    return report.with_suffix(".edits.jsonl")


class Store:
    """Measured edits, in a file or in memory only; one measurement at a time uses a file.

    Args:
        path: the file; None to keep nothing.
        header: what is measured.
        resume: go on with what the file holds; otherwise it is written anew.

    Raises:
        FidelityError: the file cannot be read or written, is of another measurement, or another
            process measures into it.
    """

    def __init__(self, path: Path | None, header: Header, *, resume: bool = False) -> None:
        self._path = path
        self._lock: BaseFileLock | None = None
        self.rows: dict[str, EditRow] = {}
        if path is None:
            return
        self._lock = _locked(path)
        try:
            self._open(path, header, resume=resume)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others use the file."""
        if self._lock is not None:
            self._lock.release()

    def _open(self, path: Path, header: Header, *, resume: bool) -> None:
        if resume and path.exists():
            held, rows = read_rows(path)
            if held != header:
                raise FidelityError(
                    f"{path} holds a measurement of another model or with other options; resume "
                    "it with the same ones, or measure without --resume to start anew"
                )
            self.rows = {row.key: row for row in rows}
        self._write("w", [header, *self.rows.values()])

    def add(self, row: EditRow) -> None:
        """Keep an edit; on disk before this returns."""
        self.rows[row.key] = row
        if self._path is not None:
            self._write("a", [row])

    def _write(self, how: Literal["w", "a"], lines: Iterable[BaseModel]) -> None:
        assert self._path is not None
        try:
            with self._path.open(how, encoding="utf-8") as file:
                for line in lines:
                    bare = isinstance(line, EditRow)
                    file.write(line.model_dump_json(exclude_defaults=bare) + "\n")
        except OSError as error:
            raise FidelityError(
                f"{self._path}: cannot be written: {error.strerror}; name another file with --json"
            ) from error


def _locked(path: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FidelityError(
            f"another process measures into {path}; stop it, or name another file with --json"
        ) from error
    except OSError as error:
        raise FidelityError(
            f"{path}: cannot be written: {error.strerror}; name another file with --json"
        ) from error
    return lock


def read_rows(path: Path) -> tuple[Header, list[EditRow]]:
    """The header and edits of a file; a last line cut off by a kill is left out.

    Raises:
        FidelityError: the file cannot be read, or is of something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FidelityError(f"{path}: cannot be read ({error})") from error
    header = _parsed(Header, lines[0], path, 1)
    complete = enumerate(lines[1:-1], start=2)  # behind the last line break is nothing, or half
    return header, [_parsed(EditRow, line, path, number) for number, line in complete]


def _parsed(kind: type[M], line: str, path: Path, number: int) -> M:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise FidelityError(
            f"{path}, line {number}: not of a fidelity measurement ({error.error_count()} "
            "problems); measure without --resume to start anew"
        ) from error
