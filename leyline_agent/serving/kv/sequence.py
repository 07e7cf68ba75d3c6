"""Sequences: a list of segments over the slot pool, one logical token after the other.

    logical position   0 .......... 40 ............. 64 ......... 90
    segments           [slots 0-40) [slots 100-124)  [slots 60-86)
    offset              0            0                -20

A segment is a run of neighbouring slots with one position offset: the key in a slot was rotated
once, at the position the pool remembers, and stands `offset` positions further on (or back) in
this sequence. An edit rewrites the list; no key or value moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from leyline_agent.serving.kv.slots import Extent, SlotPool

__all__ = ["CLEAN", "CachedSequence", "Segment", "cut_segments", "slice_segments"]

CLEAN: frozenset[str] = frozenset()


class Segment(NamedTuple):
    """Slots [slot, slot + length), standing `offset` positions from where they were rotated.

    `saw` holds the ids of edits whose removed spans these tokens absorbed: empty for canonical KV.
    """

    slot: int
    length: int
    offset: int = 0
    saw: frozenset[str] = CLEAN

    @property
    def extent(self) -> Extent:
        """The slots."""
        return Extent(self.slot, self.slot + self.length)


def slice_segments(segments: Iterable[Segment], start: int, end: int) -> Iterator[Segment]:
    """The parts of the segments that lie in logical positions [start, end)."""
    at = 0
    for segment in segments:
        slot, length, offset, saw = segment
        low, high = max(start, at), min(end, at + length)
        if low < high:
            yield Segment(slot + low - at, high - low, offset, saw)
        at += length
        if at >= end:
            return


def cut_segments(
    segments: Sequence[Segment], ranges: Iterable[tuple[int, int]]
) -> Iterator[tuple[Segment, ...]]:
    """`slice_segments` for many ranges, ascending and apart, in one pass over the segments."""
    index = at = 0
    for start, end in ranges:
        while index < len(segments) and at + segments[index].length <= start:
            at += segments[index].length
            index += 1
        parts: list[Segment] = []
        while index < len(segments) and at < end:
            slot, length, offset, saw = segments[index]
            low, high = max(start, at), min(end, at + length)
            parts.append(Segment(slot + low - at, high - low, offset, saw))
            if at + length > end:
                break
            at += length
            index += 1
        yield tuple(parts)


@dataclass
class CachedSequence:
    """Tokens and the segments that hold their KV. Owns one reference on each of its slots.

    `tokens` and the segments' total length agree, but for slots still to be filled by a forward
    pass that is under way.
    """

    pool: SlotPool
    tokens: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def canonical_len(self) -> int:
        """How many leading tokens hold canonical KV (what a plain prefill would give)."""
        at = 0
        for segment in self.segments:
            if segment.saw:
                return at
            at += segment.length
        return at

    @property
    def saw(self) -> frozenset[str]:
        """The edits absorbed by the last token, hence by everything computed behind it."""
        return self.segments[-1].saw if self.segments else CLEAN

    def first_that_saw(self, edit_id: str) -> int | None:
        """The position of the first token that absorbed the span edit `edit_id` removed."""
        at = 0
        for segment in self.segments:
            if edit_id in segment.saw:
                return at
            at += segment.length
        return None

    def extents(self, start: int = 0, end: int | None = None) -> list[Extent]:
        """The slots of logical positions [start, end)."""
        stop = len(self.tokens) if end is None else end
        return [segment.extent for segment in slice_segments(self.segments, start, stop)]

    def extend(self, tokens: Sequence[int]) -> list[Extent]:
        """Append tokens in freshly allocated slots, to be filled by a forward pass.

        Raises:
            OutOfSlots: the pool is full; nothing has changed.
        """
        after = self.segments[-1].slot + self.segments[-1].length if self.segments else None
        extents = self.pool.allocate(len(tokens), after=after)
        saw = self.saw
        at = len(self.tokens)
        for extent in extents:
            size = extent.end - extent.start
            self.pool.positions[extent.start : extent.end] = np.arange(at, at + size)
            append_segment(self.segments, Segment(extent.start, size, 0, saw))
            at += size
        self.tokens.extend(tokens)
        return extents

    def truncate(self, length: int) -> None:
        """Drop everything behind the first `length` tokens and give its slots back."""
        self.pool.release(self.extents(length, len(self.tokens)))
        self.segments = list(slice_segments(self.segments, 0, length))
        del self.tokens[length:]

    def fork(self, length: int | None = None) -> CachedSequence:
        """A second sequence over the same slots (its first `length` tokens)."""
        size = len(self.tokens) if length is None else length
        segments = list(slice_segments(self.segments, 0, size))
        self.pool.retain([segment.extent for segment in segments])
        return CachedSequence(self.pool, self.tokens[:size], segments)

    def release(self) -> None:
        """Give all slots back; the sequence is empty afterwards. Safe to call twice."""
        if self.segments:
            self.pool.release([segment.extent for segment in self.segments])
        self.tokens = []
        self.segments = []


def append_segment(segments: list[Segment], segment: Segment) -> None:
    """Append, joining with the last segment when the two are one run."""
    if segments:
        last = segments[-1]
        joins = last.slot + last.length == segment.slot
        if joins and (last.offset, last.saw) == (segment.offset, segment.saw):
            segments[-1] = last._replace(length=last.length + segment.length)
            return
    segments.append(segment)
