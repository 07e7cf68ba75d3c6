"""Token slots: who holds which, and which are free. Bookkeeping only; no tensor lives here.

    slot        0 ........ 40 ........ 64 ........ 90 ....... 128
    references  [  2 2 2  )[   free   )[  1 1 1  )[    free    )

Every run of slots is half-open. A slot with one reference or more is used; the release that takes
its last reference makes it free. Free runs never touch: neighbours are joined at once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from leyline_agent.errors import EngineError, OutOfSlots

__all__ = ["Extent", "SlotPool", "join_extents", "slice_extents"]

Counts = np.ndarray[tuple[int], np.dtype[np.int32]]


class Extent(NamedTuple):
    """A run of neighbouring slots [start, end)."""

    start: int
    end: int


def slice_extents(extents: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    """The slots of tokens [start, end), counted along the extents."""
    at = 0
    for extent in extents:
        size = extent.end - extent.start
        low, high = max(start, at), min(end, at + size)
        if low < high:
            yield Extent(extent.start + low - at, extent.start + high - at)
        at += size
        if at >= end:
            return


def join_extents(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The same slots in the same order, extents that continue one another made one."""
    last: Extent | None = None
    for extent in extents:
        if last is None:
            last = extent
        elif last.end == extent.start:
            last = Extent(last.start, extent.end)
        else:
            yield last
            last = extent
    if last is not None:
        yield last


class SlotPool:
    """Token slots (page size 1) with reference counts.

    Slot i holds the key and value of one token in every layer.

    Attributes:
        num_slots: how many slots there are.
        num_free: how many of them nobody holds.
        positions: int64 [num_slots], the position at which the slot's key was rotated, once, when
            it was written. Whoever fills a slot sets it.
        epochs: int64 [num_slots], a number that differs each time a slot is handed out, so that
            a copy of its content can tell whether the slot still holds it.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise EngineError(f"a pool needs at least one slot, not {num_slots}")
        self.num_slots = num_slots
        self.num_free = num_slots
        self.positions = np.zeros(num_slots, np.int64)
        self.epochs = np.zeros(num_slots, np.int64)
        self._epoch = 0
        self._counts: Counts = np.zeros(num_slots, np.int32)
        self._starts = [0]  # of the free runs, ascending
        self._ends = {0: num_slots}  # by start
        self._by_size = [(num_slots, 0)]  # (size, start), ascending

    @property
    def num_used(self) -> int:
        """How many slots somebody holds."""
        return self.num_slots - self.num_free

    @property
    def references(self) -> Counts:
        """Reference counts, int32 [num_slots]: a read-only view."""
        view = self._counts.view()
        view.flags.writeable = False
        return view

    def free_extents(self) -> list[Extent]:
        """The free runs, ascending."""
        return [Extent(start, self._ends[start]) for start in self._starts]

    def allocate(self, n: int, *, after: int | None = None) -> list[Extent]:
        """`n` slots with one reference each, in as few runs as there are, in order of use.

        Args:
            n: how many; 0 gives [].
            after: one past the caller's last slot; the run grows there first if that is free.

        Raises:
            OutOfSlots: fewer than `n` are free; nothing has changed.
        """
        if n < 0:
            raise EngineError(f"cannot allocate {n} slots")
        if n > self.num_free:
            raise OutOfSlots(
                f"{n} slots are needed and {self.num_free} of {self.num_slots} are free; "
                "release sequences, evict cached prefixes or make the pool larger (`leyline serve "
                "--kv-gib`, `EngineConfig(kv_bytes=...)`)"
            )
        taken: list[Extent] = []
        if n and after in self._ends:
            taken.append(self._take(after, min(n, self._ends[after] - after)))
            n -= taken[0].end - taken[0].start
        while n:
            size, start = self._by_size[-1]
            taken.append(self._take(_place(start, size, n), min(n, size)))
            n -= min(n, size)
        return taken

    def retain(self, extents: Iterable[Extent]) -> None:
        """Add a reference to each slot.

        Raises:
            EngineError: an extent is out of range or partly free; those before it are retained.
        """
        for extent in extents:
            counts = self._held(extent, "retain")
            counts += 1

    def release(self, extents: Iterable[Extent]) -> list[Extent]:
        """Take a reference from each slot; the runs that became free.

        Raises:
            EngineError: an extent is out of range or partly free; those before it are released.
        """
        freed: list[Extent] = []
        for extent in extents:
            counts = self._held(extent, "release")
            counts -= 1
            if np.count_nonzero(counts) == len(counts):
                continue
            for run in _runs(counts == 0, extent.start):
                self._give_back(run)
                freed.append(run)
        return freed

    def exclusive(self, extents: Iterable[Extent]) -> list[Extent]:
        """The parts of the extents that exactly one reference holds."""
        return [
            run
            for extent in extents
            for run in _runs(self._held(extent, "look up") == 1, extent.start)
        ]

    def _held(self, extent: Extent, verb: str) -> Counts:
        """The extent's reference counts, after checking that all of it is in use."""
        start, end = extent
        if not 0 <= start < end <= self.num_slots:
            raise EngineError(
                f"cannot {verb} slots [{start}, {end}): empty, or outside a pool of "
                f"{self.num_slots} slots"
            )
        counts = self._counts[start:end]
        if np.count_nonzero(counts) < end - start:  # several times cheaper than all() on few slots
            free = start + int(counts.argmin())
            raise EngineError(f"cannot {verb} slots [{start}, {end}): slot {free} is free")
        return counts

    def _take(self, start: int, size: int) -> Extent:
        """Take [start, start + size) out of the free run it lies in."""
        run_start = self._starts[bisect_right(self._starts, start) - 1]
        run_end = self._ends[run_start]
        end = start + size
        self._remove_free(run_start)
        if run_start < start:
            self._add_free(run_start, start)
        if end < run_end:
            self._add_free(end, run_end)
        self._counts[start:end] = 1
        self._epoch += 1
        self.epochs[start:end] = self._epoch
        self.num_free -= size
        return Extent(start, end)

    def _give_back(self, run: Extent) -> None:
        """Make a run free, joined with the free runs it touches."""
        start, end = run
        self.num_free += end - start
        at = bisect_left(self._starts, start)
        if at < len(self._starts) and self._starts[at] == end:
            end = self._ends[end]
            self._remove_free(run.end)
        if at > 0 and self._ends[self._starts[at - 1]] == start:
            start = self._starts[at - 1]
            self._remove_free(start)
        self._add_free(start, end)

    def _add_free(self, start: int, end: int) -> None:
        insort(self._starts, start)
        self._ends[start] = end
        insort(self._by_size, (end - start, start))

    def _remove_free(self, start: int) -> None:
        end = self._ends.pop(start)
        del self._starts[bisect_left(self._starts, start)]
        del self._by_size[bisect_left(self._by_size, (end - start, start))]


def _place(start: int, size: int, n: int) -> int:
    """Where in a free run to put `n` slots.

    The used slots in front of the run may want to grow into it, so the new ones leave them half of
    what remains. At the front of the pool nobody does.
    """
    return start + max(0, size - n) // 2 if start else 0


def _runs(mask: np.ndarray[Any, np.dtype[np.bool_]], base: int) -> list[Extent]:
    """The runs of True in a mask whose first entry is slot `base`."""
    if mask.all():
        return [Extent(base, base + len(mask))]
    if not mask.any():
        return []
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + (base + 1)
    bounds = [base, *edges.tolist(), base + len(mask)]
    first = 0 if mask[0] else 1
    return [Extent(a, b) for a, b in zip(bounds[first::2], bounds[first + 1 :: 2], strict=False)]
