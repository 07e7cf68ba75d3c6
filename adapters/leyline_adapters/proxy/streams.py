"""Server-sent events, read out of bytes that go through as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Event", "Reader", "rewritten"]


class Event(NamedTuple):
    """One event.

    Attributes:
        raw: its bytes, the blank line behind it included.
        data: its data, lines joined; "" where it has none.
    """

    raw: bytes
    data: str

    @property
    def body(self) -> dict[str, Any] | None:
        """The JSON object it carries; None when it is none, as at a stream's end."""
        try:
            found = json.loads(self.data)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


class Reader:
    """Cuts a stream of bytes into events, wherever the pieces were cut."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that are whole with this piece."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._lines.append(line + b"\n")
            if not line.rstrip(b"\r"):
                yield self._event()

    def end(self) -> Iterator[Event]:
        """What stands behind the last blank line, if anything does."""
        if self._rest:
            self._lines.append(self._rest)
            self._rest = b""
        if self._lines:
            yield self._event()

    def _event(self) -> Event:
        lines, self._lines = self._lines, []
        told = [line.rstrip(b"\r\n")[5:] for line in lines if line.startswith(b"data:")]
        data = b"\n".join(text.removeprefix(b" ") for text in told)
        return Event(b"".join(lines), data.decode("utf-8", "replace"))


def rewritten(event: Event, data: bytes) -> bytes:
    """The event with other data, of one line."""
    lines = event.raw.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if line.startswith(b"data:"))
    ending = b"\r\n" if lines[first].endswith(b"\r\n") else b"\n"
    kept = [line for line in lines if not line.startswith(b"data:")]
    return b"".join([*kept[:first], b"data: " + data + ending, *kept[first:]])
