"""The file of a measurement: a line an edit, so that a killed one goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.records import Config, EditRow
from leyline_evals.lines import Lines

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["Header", "Store", "beside", "read_rows"]


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
        self._lines: Lines | None = None
        self._lock: BaseFileLock | None = None
        self.rows: dict[str, EditRow] = {}
        if path is None:
            return
        self._lines, self._lock = _lines(path), _locked(path)
        try:
            if resume and path.exists():
                self.rows = {row.key: row for row in _held(path, header)}
            self._lines.begin(header, self.rows.values())
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

    def add(self, row: EditRow) -> None:
        """Keep an edit; on disk before this returns."""
        self.rows[row.key] = row
        if self._lines is not None:
            self._lines.add([row])


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
    return _lines(path).read(Header, EditRow)


def _held(path: Path, header: Header) -> list[EditRow]:
    held, rows = read_rows(path)
    if held != header:
        raise FidelityError(
            f"{path} holds a measurement of another model or with other options; resume "
            "it with the same ones, or measure without --resume to start anew"
        )
    return rows


def _lines(path: Path) -> Lines:
    again = "measure without --resume to start anew"
    return Lines(path, "a fidelity measurement", FidelityError, again)
