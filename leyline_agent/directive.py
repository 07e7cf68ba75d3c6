"""Directives: edits in token space, D = (start, end, replacement, mode) of arXiv 2606.01065.

All spans are half-open and in the coordinates of the *original* sequence, however many
directives one batch holds; a cumulative shift is the business of `apply`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from leyline_agent.errors import InvalidSpan, OverlappingSpans, UnsupportedMode

__all__ = ["Directive", "KeptRun", "Mode", "apply", "as_mode", "check", "kept_runs", "strongest"]


class Mode(str, Enum):
    """How an engine carries out an edit. FORGET > REPAIR > AMORTIZE in strength.

    AMORTIZE keeps the suffix's KV and corrects its positions; what the suffix absorbed from the
    removed span stays in it. REPAIR is AMORTIZE plus recomputing a few suffix tokens. FORGET
    computes the whole suffix again: nothing computed while the span was visible survives.
    """

    AMORTIZE = "amortize"
    REPAIR = "repair"
    FORGET = "forget"

    @property
    def strength(self) -> int:
        """0 for AMORTIZE, 1 for REPAIR, 2 for FORGET."""
        return _STRENGTH[self]


_STRENGTH = {Mode.AMORTIZE: 0, Mode.REPAIR: 1, Mode.FORGET: 2}


def as_mode(value: Mode | str) -> Mode:
    """A mode from its name.

    Raises:
        UnsupportedMode: no mode has that name.
    """
    try:
        return Mode(value)
    except ValueError:
        names = ", ".join(mode.value for mode in Mode)
        raise UnsupportedMode(f"no mode is named {value!r}; the modes are {names}") from None


def strongest(*modes: Mode | None) -> Mode:
    """The strongest of the modes that are given; AMORTIZE when none is."""
    return max((m for m in modes if m is not None), key=lambda m: m.strength, default=Mode.AMORTIZE)


class Directive(NamedTuple):
    """Replace the tokens [start, end) by `replacement`, carried out in `mode`."""

    start: int
    end: int
    replacement: tuple[int, ...] = ()
    mode: Mode = Mode.AMORTIZE

    @property
    def delta(self) -> int:
        """By how many positions the tokens behind the span move; negative when it shrinks."""
        return len(self.replacement) - (self.end - self.start)


class KeptRun(NamedTuple):
    """A kept run: original tokens [start, end), which move by `shift` positions."""

    start: int
    end: int
    shift: int


def check(directives: Iterable[Directive], length: int) -> tuple[Directive, ...]:
    """Directives sorted by span, after checking that they fit a sequence of `length` tokens.

    Raises:
        InvalidSpan: a span is reversed, negative or past the end.
        OverlappingSpans: two spans share a token, or two insertions share a place.
    """
    ordered = tuple(sorted(directives, key=lambda d: (d.start, d.end)))
    previous: Directive | None = None
    for directive in ordered:
        if not 0 <= directive.start <= directive.end <= length:
            raise InvalidSpan(
                f"directive span [{directive.start}, {directive.end}) does not fit a sequence of "
                f"{length} tokens; spans are half-open, in coordinates of the original sequence"
            )
        if previous is not None and (
            directive.start < previous.end
            or (directive.start, directive.end) == (previous.start, previous.end)
        ):
            raise OverlappingSpans(
                f"directives [{previous.start}, {previous.end}) and [{directive.start}, "
                f"{directive.end}) overlap; merge them or send them in separate commits"
            )
        previous = directive
    return ordered


def apply(tokens: Sequence[int], directives: Iterable[Directive]) -> list[int]:
    """The sequence after the directives. Raises what `check` raises."""
    result: list[int] = []
    cursor = 0
    for directive in check(directives, len(tokens)):
        result.extend(tokens[cursor : directive.start])
        result.extend(directive.replacement)
        cursor = directive.end
    result.extend(tokens[cursor:])
    return result


def kept_runs(directives: Iterable[Directive], length: int) -> list[KeptRun]:
    """The non-empty runs of original tokens that survive, each with its cumulative shift."""
    runs: list[KeptRun] = []
    cursor = shift = 0
    for directive in check(directives, length):
        if directive.start > cursor:
            runs.append(KeptRun(cursor, directive.start, shift))
        shift += directive.delta
        cursor = directive.end
    if cursor < length:
        runs.append(KeptRun(cursor, length, shift))
    return runs
