"""Readers: recorded agent runs of many formats as OpenAI-chat messages.

    for recording in read("run.traj.json"):
        trajectory = recording.trajectory()

One module a format, found by content, never by file name. Each module has a `NAME`, `matches`
(is this JSON value one?) and `recordings` (the runs in it). Nothing read is ever executed.

What the model read is kept; what harnesses add is not, but for `is_error: True` and
`extra: {"exit_code": n}` on results, which signals use and identity ignores or names.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from leyline_agent.errors import TrajectoryError
from leyline_agent.readers import journal
from leyline_agent.readers.recording import Recording
from leyline_agent.readers.registry import READERS, detect, find, is_batch
from leyline_agent.readers.source import Line, lines, open_bytes

__all__ = ["OnError", "Recording", "detect", "formats", "read", "read_text"]

logger = logging.getLogger("leyline.readers")

OnError = Literal["raise", "skip"] | Callable[[TrajectoryError], None]
"""What to do with a bad record: raise, skip it with a warning, or hand its error to a function."""


def formats() -> tuple[str, ...]:
    """The names of the formats that can be read."""
    return (*(reader.name for reader in READERS), journal.NAME)


def read(
    path: str | Path, *, limit: int | None = None, on_error: OnError = "raise"
) -> Iterator[Recording]:
    """The runs in a file, one after the other; JSON lines are read as they are needed.

    Args:
        path: JSON or JSON lines, gzipped or not.
        limit: stop after so many runs.
        on_error: for a record that is malformed or of no known format.

    Raises:
        UnknownFormat: no reader recognises a record.
        TrajectoryError: the file cannot be read, is no JSON, or a record is malformed.
    """
    with open_bytes(Path(path)) as stream:
        yield from _limited(_recordings(lines(stream, str(path)), on_error), limit)


def read_text(
    text: str, *, limit: int | None = None, on_error: OnError = "raise"
) -> Iterator[Recording]:
    """The runs in JSON text or JSON lines. The same as `read` otherwise."""
    stream = io.BytesIO(text.encode("utf-8", "surrogatepass"))
    yield from _limited(_recordings(lines(stream, "text"), on_error), limit)


def _limited(recordings: Iterator[Recording], limit: int | None) -> Iterator[Recording]:
    if limit is None:
        yield from recordings
        return
    for _ in range(limit):
        recording = next(recordings, None)
        if recording is None:
            return
        yield recording


def _recordings(found: Iterator[Line], on_error: OnError) -> Iterator[Recording]:
    """The runs of each record, with a number for those that have no name."""
    number = 0
    first = next(found, None)
    if first is None:
        return
    if journal.begins(first.value):
        try:
            yield from journal.recordings(first, found)
        except TrajectoryError as error:
            _bad(error, on_error)
        return
    for line in chain([first], found):
        for where, record in _records(line):
            try:
                for recording in _read_record(record):
                    number += 1
                    yield replace(recording, id=recording.id or f"run-{number}")
            except TrajectoryError as error:
                named = error if where in str(error) else type(error)(f"{where}: {error}")
                _bad(named, on_error)


def _bad(error: TrajectoryError, on_error: OnError) -> None:
    """Do with a bad record what the caller wants."""
    if on_error == "raise":
        raise error
    if on_error == "skip":
        logger.warning("skipped: %s", error)
    else:
        on_error(error)


def _records(line: Line) -> Iterator[tuple[str, Any]]:
    """A value's records: itself, or each of a list of records."""
    if not is_batch(line.value):
        yield line.where, line.value
        return
    for index, record in enumerate(line.value):
        yield f"{line.where}, record {index}", record


def _read_record(record: Any) -> Iterator[Recording]:
    if isinstance(record, TrajectoryError):
        raise record
    yield from find(record).recordings(record)
