"""Journals of our own sessions: one event a line, so that the file is one record.

Each branch of the session is a run, unedited, the newest first. See docs/journal.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from leyline_agent.errors import TrajectoryError
from leyline_agent.journal import Event, begins, checked
from leyline_agent.readers.chat import normalise
from leyline_agent.readers.recording import Recording
from leyline_agent.readers.source import Line
from leyline_agent.resume import follow

__all__ = ["NAME", "begins", "recordings"]

NAME = "leyline-journal"


def recordings(first: Line, rest: Iterator[Line]) -> Iterator[Recording]:
    """The session's branches; a last line that was cut off while it was written is passed over.

    Raises:
        TrajectoryError: a line is corrupt, or does not fit what comes before it.
    """
    name = first.where.rpartition(", line ")[0]
    ((_, state),) = deque(follow(_events(first, rest), name), maxlen=1)
    for number, head in enumerate(state.heads, start=1):
        yield Recording(
            id=state.id if number == 1 else f"{state.id}, branch {number}",
            format=NAME,
            messages=tuple(normalise([record.message for record in head.history])),
        )


def _events(first: Line, rest: Iterator[Line]) -> Iterator[Event]:
    broken: TrajectoryError | None = None
    for line in (first, *rest):
        if broken is not None:
            raise broken
        if isinstance(line.value, TrajectoryError):
            broken = line.value
        else:
            yield checked(line.value, line.where)
