"""Splicing: from directives to a new segment list, with holes where tokens must be computed.

`splice` moves no KV. It decides, for every token of the new prompt, which slot already holds it;
what no slot holds, and what REPAIR wants computed again, gets fresh slots. One forward pass over
the fresh tokens, at their logical positions, then completes the sequence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leyline_agent.directive import Directive, Mode
from leyline_agent.serving.kv.sequence import (
    CLEAN,
    CachedSequence,
    Segment,
    append_segment,
    cut_segments,
    slice_segments,
)
from leyline_agent.serving.kv.slots import Extent, SlotPool

__all__ = ["Kept", "Splice", "kept_pieces", "splice"]


class Kept(NamedTuple):
    """Tokens [start, end) of the new prompt whose KV is cached, in these segments."""

    start: int
    end: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Splice:
    """A sequence with holes.

    Attributes:
        sequence: the new sequence; the slots of `fresh` are allocated but not filled.
        fresh: positions to compute, ascending.
        exact: kept tokens that absorbed no removed span.
        spliced: kept tokens that did.
    """

    sequence: CachedSequence
    fresh: np.ndarray[tuple[int], np.dtype[np.int64]]
    exact: int
    spliced: int


def kept_pieces(
    previous: CachedSequence, directives: Sequence[Directive], ids: Sequence[str]
) -> list[Kept]:
    """The runs of `previous` that survive the directives, at their new positions.

    A FORGET directive keeps nothing behind its span. `ids` names each directive; what stands
    behind a span that was spliced out has absorbed it.
    """
    runs: list[tuple[int, int, int, frozenset[str]]] = []  # start, end, shift, absorbed
    cursor = shift = 0
    saw = CLEAN
    for directive, edit_id in zip(directives, ids, strict=True):
        runs.append((cursor, directive.start, shift, saw))
        if directive.mode is Mode.FORGET:
            break
        saw = saw | {edit_id}
        shift += directive.delta
        cursor = directive.end
    else:
        runs.append((cursor, len(previous), shift, saw))
    runs = [run for run in runs if run[0] < run[1]]
    parts = cut_segments(previous.segments, (run[:2] for run in runs))
    return [
        Kept(start + shift, end + shift, tuple(_moved(found, shift, saw)))
        for (start, end, shift, saw), found in zip(runs, parts, strict=True)
    ]


def _moved(segments: Iterable[Segment], shift: int, saw: frozenset[str]) -> Iterator[Segment]:
    """The segments at their new place. Those that absorbed the same go on sharing one set."""
    absorbed = {CLEAN: saw}
    for slot, length, offset, seen in segments:
        both = absorbed.get(seen)
        if both is None:
            both = absorbed[seen] = seen | saw
        yield Segment(slot, length, offset + shift, both)


def splice(
    pool: SlotPool,
    tokens: list[int],
    pieces: Sequence[Kept] = (),
    exact: Sequence[Extent] = (),
    repair: frozenset[int] = frozenset(),
) -> Splice:
    """A sequence of `tokens` that reuses `exact` first, then `pieces`, and leaves holes.

    Args:
        pool: where fresh slots come from.
        tokens: the new prompt; the sequence takes the list over.
        pieces: kept runs at their new positions (`kept_pieces`), ascending.
        exact: slots of a canonical prefix (a prefix tree's match); wins over `pieces`.
        repair: positions to compute again although they are kept.

    Raises:
        OutOfSlots: the fresh tokens do not fit; nothing is held then.
    """
    kept = _without(_cover(pieces, exact), repair, len(tokens))
    fresh = _holes(kept, len(tokens))
    num_fresh = sum(end - start for start, end in fresh)
    extents = pool.allocate(num_fresh, after=_growth_point(kept, fresh))
    computed = _positions(fresh)
    at = 0
    for start, end in extents:
        pool.positions[start:end] = computed[at : at + end - start]
        at += end - start
    supply = _Supply(extents)
    pool.retain([s.extent for piece in kept for s in piece.segments])
    segments: list[Segment] = []
    holes = iter(fresh)
    hole = next(holes, None)
    saw = CLEAN
    for piece in kept:
        while hole is not None and hole[0] < piece.start:
            supply.fill(segments, hole, saw)
            hole = next(holes, None)
        for segment in piece.segments:
            if segment.saw is not saw:
                saw = segment.saw if saw <= segment.saw else saw | segment.saw
                segment = segment._replace(saw=saw)
            append_segment(segments, segment)
    while hole is not None:
        supply.fill(segments, hole, saw)
        hole = next(holes, None)
    spliced = sum(s.length for p in kept for s in p.segments if s.saw)
    return Splice(
        sequence=CachedSequence(pool, tokens, segments),
        fresh=computed,
        exact=len(tokens) - num_fresh - spliced,
        spliced=spliced,
    )


def _positions(holes: Sequence[tuple[int, int]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Every position in the holes, ascending."""
    if not holes:
        return np.empty(0, np.int64)
    return np.concatenate([np.arange(start, end, dtype=np.int64) for start, end in holes])


class _Supply:
    """Hands out freshly allocated slots in order of position."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self.extents = list(reversed(extents))

    def fill(self, segments: list[Segment], hole: tuple[int, int], saw: frozenset[str]) -> None:
        start, end = hole
        while start < end:
            extent = self.extents.pop()
            size = min(end - start, extent.end - extent.start)
            if size < extent.end - extent.start:
                self.extents.append(Extent(extent.start + size, extent.end))
            append_segment(segments, Segment(extent.start, size, 0, saw))
            start += size


def _cover(pieces: Sequence[Kept], exact: Sequence[Extent]) -> list[Kept]:
    """What is cached: the canonical prefix, then the pieces behind it."""
    length = sum(extent.end - extent.start for extent in exact)
    if length == 0:
        return list(pieces)
    prefix = tuple(Segment(e.start, e.end - e.start) for e in exact)
    own = _clean_prefix(pieces)
    if own >= length:  # the session's own slots hold as much: keep them, they are in place
        return list(pieces)
    rest = [_clip(piece, length, piece.end) for piece in pieces if piece.end > length]
    return [Kept(0, length, prefix), *rest]


def _clean_prefix(pieces: Sequence[Kept]) -> int:
    at = 0
    for piece in pieces:
        if piece.start != at:
            return at
        for segment in piece.segments:
            if segment.saw:
                return at
            at += segment.length
    return at


def _clip(piece: Kept, start: int, end: int) -> Kept:
    low, high = max(piece.start, start), min(piece.end, end)
    parts = slice_segments(piece.segments, low - piece.start, high - piece.start)
    return Kept(low, high, tuple(parts))


def _without(pieces: Sequence[Kept], repair: frozenset[int], length: int) -> list[Kept]:
    """The pieces minus the positions to repair; the last token is always computed (its logits)."""
    clean = _clean_prefix(pieces)
    drop = sorted({p for p in repair if p >= clean} | {length - 1})
    result: list[Kept] = []
    for piece in pieces:
        inside = drop[bisect_left(drop, piece.start) : bisect_left(drop, piece.end)]
        if not inside:
            result.append(piece)
            continue
        bounds = zip([piece.start, *(p + 1 for p in inside)], [*inside, piece.end], strict=True)
        runs = [(start, end) for start, end in bounds if start < end]
        local = ((start - piece.start, end - piece.start) for start, end in runs)
        parts = cut_segments(piece.segments, local)
        result.extend(Kept(*run, found) for run, found in zip(runs, parts, strict=True))
    return result


def _holes(kept: Sequence[Kept], length: int) -> list[tuple[int, int]]:
    holes: list[tuple[int, int]] = []
    at = 0
    for piece in kept:
        if piece.start > at:
            holes.append((at, piece.start))
        at = piece.end
    if at < length:
        holes.append((at, length))
    return holes


def _growth_point(kept: Sequence[Kept], fresh: Sequence[tuple[int, int]]) -> int | None:
    """Where the last kept segment ends, when the fresh tokens are one run behind it."""
    if len(fresh) == 1 and kept and fresh[0][0] == kept[-1].end:
        last = kept[-1].segments[-1]
        return last.slot + last.length
    return None
