"""What a tool result shows, and when a later result shows at least the same.

A result is a set of *pieces*: parts of files it read, and outputs of commands it ran.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["WHOLE", "Effects", "Lines", "Limit", "Piece", "Read", "Run", "covers"]


class Lines(NamedTuple):
    """Lines [start, end) of a file, counted from 1; `end` None means to the last line."""

    start: int = 1
    end: int | None = None

    def contains(self, other: Lines) -> bool:
        """Whether every line of `other` is in this range."""
        if other.start < self.start:
            return False
        return self.end is None or (other.end is not None and other.end <= self.end)

    def within(self, inner: Lines) -> Lines:
        """The lines of the file that are lines `inner` of this range."""
        start = self.start + inner.start - 1
        end = None if inner.end is None else self.start + inner.end - 1
        if self.end is not None:
            end = self.end if end is None else min(end, self.end)
        return Lines(start, end)


WHOLE = Lines()


@dataclass(frozen=True)
class Read:
    """A part of a file.

    Attributes:
        path: normalised; relative where the working directory is unknown.
        lines: which lines; None for a part nobody can tell.
        key: how that part was asked for; the same key asks for the same part.
        clipped: the harness cut the text, so it shows less than `lines`.
    """

    path: str
    lines: Lines | None = WHOLE
    key: tuple[Hashable, ...] = ()
    clipped: bool = False

    def covers(self, earlier: Read) -> bool:
        """Whether this shows all that `earlier` showed. A part never covers the whole."""
        if self.path != earlier.path:
            return False
        if not self.clipped and self.lines is not None:
            return self.lines.contains(earlier.lines or WHOLE)
        asked_alike = (self.lines, self.key) == (earlier.lines, earlier.key)
        told_apart = self.lines is not None or bool(self.key)
        return asked_alike and told_apart and self.clipped <= earlier.clipped


class Limit(NamedTuple):
    """Only the first ("head") or last ("tail") `num_lines` lines of an output."""

    end: str
    num_lines: int


@dataclass(frozen=True)
class Run:
    """The output of a command or of a tool that can be called again.

    Attributes:
        key: what was run, with everything that makes it the same run.
        limit: the part of the output that is shown; None for all of it.
    """

    key: tuple[Hashable, ...]
    limit: Limit | None = None

    def covers(self, earlier: Run) -> bool:
        """Whether this is the same run, again, showing at least as much."""
        if self.key != earlier.key:
            return False
        if self.limit is None or earlier.limit is None:
            return self.limit is None
        return (
            self.limit.end == earlier.limit.end and self.limit.num_lines >= earlier.limit.num_lines
        )


Piece = Read | Run


def covers(later: Piece, earlier: Piece) -> bool:
    """Whether `later` shows all that `earlier` showed, as it is now."""
    if isinstance(later, Read):
        return isinstance(earlier, Read) and later.covers(earlier)
    return isinstance(earlier, Run) and later.covers(earlier)


@dataclass(frozen=True)
class Effects:
    """What one tool call does, as far as it can be told.

    Attributes:
        shows: the pieces its result shows; empty when nothing worth superseding.
        writes: paths of files and folders whose content it changes or removes.
        early_writes: those of them that happen even if the call's last part fails.
        scripts: scripts and patches it creates, each with the literal paths it writes when run.
        runs: scripts it runs and patches it applies, each with the working directory.
        directory: the working directory it leaves behind; "" when unknown.
    """

    shows: tuple[Piece, ...] = ()
    writes: tuple[str, ...] = ()
    early_writes: tuple[str, ...] = ()
    scripts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    runs: tuple[tuple[str, str], ...] = ()
    directory: str = ""
