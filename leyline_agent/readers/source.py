"""Bytes to JSON records: plain or gzipped, one document or one record a line.

The file's name plays no part. Memory is bounded by the largest record, never by the file.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from leyline_agent.errors import TrajectoryError

__all__ = ["MAX_RECORD_BYTES", "Line", "lines", "open_bytes"]

MAX_RECORD_BYTES = 256 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"


class Line(NamedTuple):
    """One JSON value and where it stood; `value` is the error where it is malformed."""

    where: str
    value: Any


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unzipped. Raises TrajectoryError when it cannot be opened."""
    try:
        file = path.open("rb")
    except IsADirectoryError as error:
        raise TrajectoryError(f"{path}: a folder; name the files in it") from error
    except OSError as error:
        raise TrajectoryError(f"{path}: cannot be opened: {error.strerror}") from error
    with file:
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if not zipped:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as unzipped:
            yield io.BufferedReader(unzipped)


def lines(stream: IO[bytes], name: str) -> Iterator[Line]:
    """The JSON values of a stream: its lines where its first line is one, else the whole.

    A malformed line comes as a `Line` whose value is a TrajectoryError, so that the caller may
    go on. What leaves nothing to go on with is raised.
    """
    number, first = _first_line(stream, name)
    if not first:
        raise TrajectoryError(f"{name}: empty; nothing to read")
    value = _parse(first, f"{name}, line {number}")
    if isinstance(value, TrajectoryError):
        rest = _read(stream, MAX_RECORD_BYTES, name)
        yield from _document(first + rest, number, value, name)
        return
    yield Line(f"{name}, line {number}", value)
    yield from _json_lines(stream, number, name)


def _first_line(stream: IO[bytes], name: str) -> tuple[int, bytes]:
    """The first line that is not blank, with its number; empty at the end."""
    number = 0
    while line := _readline(stream, name, number + 1):
        number += 1
        if line.strip():
            return number, line
    return number, b""


def _json_lines(stream: IO[bytes], number: int, name: str) -> Iterator[Line]:
    while line := _readline(stream, name, number + 1):
        number += 1
        if line.strip():
            where = f"{name}, line {number}"
            yield Line(where, _parse(line, where))


def _document(data: bytes, number: int, bad_line: TrajectoryError, name: str) -> Iterator[Line]:
    """One value spread over lines; else JSON lines whose first is malformed."""
    value = _parse(data, name)
    if not isinstance(value, TrajectoryError):
        yield Line(name, value)
        return
    following = list(_json_lines(io.BytesIO(data.partition(b"\n")[2]), number, name))
    if not any(isinstance(line.value, dict) for line in following):
        raise value
    yield Line(f"{name}, line {number}", bad_line)
    yield from following


def _readline(stream: IO[bytes], name: str, number: int) -> bytes:
    line = _guarded(lambda: stream.readline(MAX_RECORD_BYTES + 1), name)
    if len(line) > MAX_RECORD_BYTES:
        raise _too_large(f"{name}, line {number}")
    return line


def _read(stream: IO[bytes], limit: int, name: str) -> bytes:
    data = _guarded(lambda: stream.read(limit + 1), name)
    if len(data) > limit:
        raise _too_large(name)
    return data


def _too_large(where: str) -> TrajectoryError:
    return TrajectoryError(
        f"{where}: a record of more than {MAX_RECORD_BYTES} bytes; split it into one run a line"
    )


def _guarded(read: Callable[[], bytes], name: str) -> bytes:
    try:
        return read()
    except EOFError as error:
        raise TrajectoryError(f"{name}: truncated gzip; copy or download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TrajectoryError(f"{name}: damaged gzip ({error}); copy it again") from error
    except OSError as error:
        raise TrajectoryError(f"{name}: cannot be read: {error.strerror or error}") from error


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"{error.colno}"
        return TrajectoryError(
            f"{where}: malformed JSON at {at}: {error.msg}; cut off while being written?"
        )
    except RecursionError:
        return TrajectoryError(f"{where}: JSON nested too deeply to be a trajectory")
    except ValueError as error:  # not UTF-8, or a number with thousands of digits
        return TrajectoryError(f"{where}: not JSON text: {error}")
