"""Tapes: one of llama.cpp's sequences each, and what an edit does to it. Pure; knows no library.

llama.cpp keeps one table of cells for all sequences. A cell holds the keys and values of one token,
one position, and the sequences it belongs to. What follows from that:

* two sequences may share cells, but a shared cell has one position: before it moves it is copied;
* a move is made in place: what stood behind an edit is afterwards nowhere but behind the edit;
* tokens are only decoded behind the last cell of a sequence. To compute a token in the middle,
  what stands behind it is parked: its cells are made another sequence's, and come back later.

Every computed token is given a number of its own, its *birth*, so that a list of births says which
cells a sequence consists of, and two lists say what they share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

from leyline_agent.lowering import common_prefix

if TYPE_CHECKING:
    from leyline_adapters.llama_cpp.held import Held

__all__ = ["Cells", "Move", "Tape", "arrange", "found", "gaps", "in_order", "shared_with"]

HOLE = 0
"""The birth of a token that is still to be computed."""


class Cells(Protocol):
    """What llama.cpp does with the cells of a sequence, at positions [start, end)."""

    def remove(self, seq: int, start: int, end: int) -> None:
        """They belong to the sequence no more; what belongs to none is free."""
        ...

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """They belong to both sequences."""
        ...

    def move(self, seq: int, start: int, end: int, delta: int) -> None:
        """They stand `delta` positions further on; their keys follow with the next decode."""
        ...

    @property
    def can_own(self) -> bool:
        """Whether copies would be true: not while moved keys still have to be rotated."""
        ...

    def own(self, seq: int, scratch: int, start: int, end: int) -> None:
        """Put copies in their place that belong to nobody else; `scratch` is empty."""
        ...


class Move(NamedTuple):
    """Cells at positions [start, end) that move by `shift`."""

    start: int
    end: int
    shift: int


@dataclass(eq=False)
class Tape:
    """One sequence: its cells, and who relies on them.

    Attributes:
        seq: llama.cpp's number of it; the one behind it is for what is parked.
        tenant, owner: whose; the session that wrote last.
        tokens, births: what stands where; births are HOLE where a run has still to compute.
        moved: births of cells whose keys were rotated again; they are canonical no more.
        canonical: how many leading tokens hold what a plain prefill would give.
        holders: whose KV it is.
        writer: who is computing on it.
        parked: kept runs [start, end) that wait behind the next hole, ascending.
        used: when it was last taken up.
    """

    seq: int
    tenant: str
    owner: str = ""
    tokens: list[int] = field(default_factory=list)
    births: list[int] = field(default_factory=list)
    moved: set[int] = field(default_factory=set)
    canonical: int = 0
    holders: list[Held] = field(default_factory=list)
    writer: Held | None = None
    parked: list[tuple[int, int]] = field(default_factory=list)
    used: int = 0

    @property
    def park(self) -> int:
        """The sequence that parked cells belong to."""
        return self.seq + 1

    @property
    def computed(self) -> int:
        """How many leading tokens are computed."""
        if self.writer is None:
            return len(self.births)
        return next((i for i, birth in enumerate(self.births) if birth == HOLE), len(self.births))


def found(
    wanted: Sequence[int], births: Sequence[int], moved: Collection[int], clean: int
) -> list[Move]:
    """Which cells of a tape can be had where they are wanted, left to right.

    Args:
        wanted: the births wanted at each position; HOLE for none.
        births: those on the tape.
        moved: births of cells that were rotated.
        clean: among the first so many positions cells must be as a prefill left them: in place.
    """
    low = 0 if moved else common_prefix(wanted, births)
    result = [Move(0, low, 0)] if low else []
    places = {birth: place for place, birth in enumerate(births[low:], low)}
    for position, birth in enumerate(wanted[low:], low):
        place = places.get(birth, -1) if birth != HOLE else -1
        if place < low or (position < clean and (place != position or birth in moved)):
            continue
        shift = position - place
        last = result[-1] if result else None
        if last is not None and last.end == place and last.shift == shift:
            result[-1] = last._replace(end=place + 1)
        else:
            result.append(Move(place, place + 1, shift))
        low = place + 1  # cells keep their order
    return result


def gaps(moves: Iterable[Move], length: int) -> Iterator[tuple[int, int]]:
    """The positions that no move takes along."""
    cursor = 0
    for start, end, _ in moves:
        if cursor < start:
            yield cursor, start
        cursor = end
    if cursor < length:
        yield cursor, length


def in_order(moves: Iterable[Move]) -> list[Move]:
    """The moves that change something, such that none catches cells of another on its way.

    What moves on goes first, from the right; then what moves back, from the left: the runs are in
    the same order before and after, so each then moves into positions where nothing stands.
    """
    changing = [move for move in moves if move.shift]
    onward = [move for move in reversed(changing) if move.shift > 0]
    return onward + [move for move in changing if move.shift < 0]


def arrange(
    cells: Cells,
    tape: Tape,
    moves: Sequence[Move],
    wanted: list[int],
    shared: int,
    numbers: Iterator[int],
) -> None:
    """Bring a tape's cells to where they are wanted, with room for what is to be computed.

    Args:
        cells: llama.cpp's.
        tape: nobody computes on it.
        moves: what `found` returned for it.
        wanted: the births afterwards; the tape takes the list over. HOLE where none is kept.
        shared: cells at the first so many positions belong to other tapes too.
        numbers: births of the copies that are made of them where they move.
    """
    for start, end in gaps(moves, len(tape.births)):
        cells.remove(tape.seq, start, end)
    for start, end, shift in in_order(moves):
        if start < shared:
            stop = min(end, shared)
            cells.own(tape.seq, tape.park, start, stop)
            wanted[start + shift : stop + shift] = islice(numbers, stop - start)
        cells.move(tape.seq, start, end, shift)
        tape.moved.update(wanted[start + shift : end + shift])
    kept = [(start + shift, end + shift) for start, end, shift in moves]
    hole = next((i for i, birth in enumerate(wanted) if birth == HOLE), len(wanted))
    tape.parked = [(start, end) for start, end in kept if start > hole]
    if tape.parked:
        first, last = tape.parked[0][0], tape.parked[-1][1]
        cells.share(tape.seq, tape.park, first, last)
        cells.remove(tape.seq, first, last)
    tape.births = wanted


def shared_with(tape: Tape, others: Iterable[Tape]) -> int:
    """How many leading cells of a tape belong to some other tape too."""
    rest = (other for other in others if other is not tape)
    return max((common_prefix(tape.births, other.births) for other in rest), default=0)
