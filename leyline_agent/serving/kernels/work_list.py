"""Work lists: which slots each program of an attention kernel reads, worked out on the host.

Softmax does not care about the order of the keys, so a sequence's keys are laid out twice:

    segments   [------- 3 tiles and 9 tokens -------)[5)[12)[------ 2 tiles and 7 tokens ------)
    runs       [ tile ][ tile ][ tile ]                     [ tile ][ tile ]
    spans                              9  + 5 + 12 +                        7   -> one tile

A *run* is neighbouring slots with one offset: a program turns its queries back once for it. *Spans*
are what is left over, packed one behind the other, with a slot and an offset a token: a program
turns these keys in registers. Runs and spans each ascend by position, so that what a query sees
is a stretch of either. Queries are cut into tiles, what a tile sees is counted in units of one
key tile, and the units are dealt to *items*, one program each, so that all carry about the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.backend import Rows

__all__ = ["Ints", "KeyLayout", "Tiling", "WorkList", "lay_out", "make_work_list"]

Ints = np.ndarray[Any, np.dtype[np.int64]]

# Columns of the tables the kernels read.
ITEM = 8  # first query row, queries, first run, end run, begin, end, first span token, end
RUN = 4  # first slot, length, row of the cosines and sines, logical position of the first key
MERGE = 4  # query row, first partial row, partial rows, unused

# A segment of so many tiles is one run, remainder and all: the last tile's idle part is small
# beside it. Spans have to save more than a few tiles for the sequence to have any.
_LONG_TILES = 8
_WORTH_TILES = 4
# A partial result is written and read again: each item should read a few tiles of keys for it.
_MIN_UNITS = 4


class Tiling(NamedTuple):
    """How work is cut.

    Attributes:
        queries: at most so many query tokens a tile.
        keys: keys a tile.
        items: about how many items fill the device; 1 leaves every tile of queries whole.
    """

    queries: int
    keys: int
    items: int


@dataclass(frozen=True)
class KeyLayout:
    """The keys of a batch as runs and spans. Sequences lie one behind the other: `at` counts on.

    Attributes:
        runs: [n, RUN].
        run_at: [n] where each run begins, counting through the batch.
        spans: [3, m] slot, row and logical position of each token.
        span_at: [m] where each token stands, counting through the batch.
        starts: [sequences + 1] where each sequence begins.
        offsets: [rows] the distinct position offsets.
        end_slot: one more than the highest slot.
    """

    runs: Ints
    run_at: Ints
    spans: Ints
    span_at: Ints
    starts: Ints
    offsets: Ints
    end_slot: int


@dataclass(frozen=True)
class WorkList:
    """What one launch of an attention kernel does.

    Attributes:
        items: [n, ITEM]; item i writes partial rows from i * queries on.
        merges: [rows, MERGE]; which partial rows make up each query row.
        keys: what the items point into.
        split: whether any query has more than one partial result.
    """

    items: Ints
    merges: Ints
    keys: KeyLayout
    split: bool


def lay_out(batch: Sequence[Rows], block: int) -> KeyLayout:
    """Runs and spans of the batch's segments, for tiles of `block` keys.

    Raises:
        EngineError: a segment begins at a negative slot.
    """
    slot, length, offset = _columns(batch)
    if slot.min() < 0:
        raise EngineError(f"segments begin at slot {slot.min()}; the first slot is 0")
    counts = np.array([len(rows.segments) for rows in batch])
    sequence = np.repeat(np.arange(len(batch)), counts)
    ends = np.cumsum(length)
    at = ends - length
    sums = np.bincount(sequence, length, len(batch)).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(sums)))
    offsets, row = np.unique(offset, return_inverse=True)
    whole = _run_lengths(length, sequence, len(batch), block)
    rest = length - whole
    where = at - starts[sequence]
    runs = np.stack([slot, whole, row, where], 1)
    spans = np.stack([slot, row, where])
    long = whole > 0
    within = np.arange(rest.sum()) - np.repeat(np.cumsum(rest) - rest, rest)
    step = within + np.repeat(whole, rest)
    spans = np.repeat(spans, rest, 1) + np.stack([step, np.zeros_like(step), step])
    span_at = np.repeat(at, rest) + step
    end_slot = int((slot + length).max(initial=0))
    return KeyLayout(runs[long], at[long], spans, span_at, starts, offsets, end_slot)


def _columns(batch: Sequence[Rows]) -> tuple[Ints, Ints, Ints]:
    """Slot, length and offset of all segments. Transposed by zip: a loop would cost more."""
    slot, length, offset, _ = zip(*chain.from_iterable(r.segments for r in batch), strict=True)
    return np.array(slot, np.int64), np.array(length, np.int64), np.array(offset, np.int64)


def _run_lengths(length: Ints, sequence: Ints, num_sequences: int, block: int) -> Ints:
    """How many leading tokens of each segment are a run; the others go to the spans."""
    short = np.where(length >= _LONG_TILES * block, 0, length % block)
    tokens = np.bincount(sequence, short, num_sequences)
    saved = np.bincount(sequence, short > 0, num_sequences) - np.ceil(tokens / block)
    return length - np.where(saved[sequence] > _WORTH_TILES, short, 0)


def make_work_list(
    batch: Sequence[Rows],
    first_rows: Sequence[int],
    keys: KeyLayout,
    tiling: Tiling,
    *,
    window: int | None = None,
) -> WorkList:
    """Items that show every query the keys up to its position, inside `window`, each once.

    With one query a tile an item points at exactly those keys; with more, the kernel hides from
    each query what only its neighbours see.

    Args:
        batch: the sequences, as they were laid out.
        first_rows: where each sequence's queries begin in the tensors.
        keys: `lay_out` of the batch.
        tiling: how to cut; `tiling.keys` as for `lay_out`.
        window: query p sees keys in (p - window, p].

    Raises:
        EngineError: a query stands behind its sequence's last slot.
    """
    tiles = _tiles(batch, np.asarray(first_rows), keys.starts, tiling.queries, window)
    seen = _seen(keys, tiles.low, tiles.high, tiling.keys)
    units = seen.run_units + seen.span_units
    parts = _parts(units, tiling.items)
    of = np.repeat(np.arange(len(units)), parts)
    part = np.arange(len(of)) - np.repeat(np.cumsum(parts) - parts, parts)
    begin, end = units[of] * part // parts[of], units[of] * (part + 1) // parts[of]
    items = np.zeros((len(of), ITEM), np.int64)
    items[:, 0], items[:, 1] = tiles.row[of], tiles.size[of]
    _runs_of(items, keys, seen, of, begin, end, tiling.keys)
    _spans_of(items, seen, of, begin, end, tiling.keys)
    return WorkList(items, _merges(tiles, parts, tiling.queries), keys, bool((parts > 1).any()))


class _Tiles(NamedTuple):
    """Tiles of queries: first row, queries, and the keys [low, high) that any of them sees."""

    row: Ints
    size: Ints
    low: Ints
    high: Ints


def _tiles(
    batch: Sequence[Rows], first_rows: Ints, starts: Ints, size: int, window: int | None
) -> _Tiles:
    lengths = np.array([len(rows.positions) for rows in batch])
    positions = np.concatenate([rows.positions for rows in batch])
    num = -(-lengths // size)
    of = np.repeat(np.arange(len(batch)), num)
    step = (np.arange(len(of)) - np.repeat(np.cumsum(num) - num, num)) * size
    count = np.minimum(lengths[of] - step, size)
    at = (np.cumsum(lengths) - lengths)[of] + step
    high = positions[at + count - 1] + 1
    beyond = np.flatnonzero(starts[of] + high > starts[of + 1])
    if len(beyond):
        which = of[beyond[0]]
        raise EngineError(
            f"sequence {which} of the batch has {starts[which + 1] - starts[which]} tokens in its "
            f"segments and a query at position {high[beyond[0]] - 1}; extend the segments first"
        )
    low = np.zeros_like(high) if window is None else np.maximum(positions[at] - window + 1, 0)
    return _Tiles(first_rows[of] + step, count, starts[of] + low, starts[of] + high)


class _Seen(NamedTuple):
    """What each tile of queries sees: runs [lo, hi) from `begin` in the first to `end` in the last.

    Units are key tiles; those of the first run are counted from `begin`.
    """

    run_lo: Ints
    run_hi: Ints
    begin: Ints
    end: Ints
    first_units: Ints
    unit_ends: Ints
    run_units: Ints
    span_lo: Ints
    span_hi: Ints
    span_units: Ints


def _seen(keys: KeyLayout, low: Ints, high: Ints, block: int) -> _Seen:
    length, at = keys.runs[:, 1], keys.run_at
    lo = np.searchsorted(at + length, low, "right")
    hi = np.maximum(np.searchsorted(at, high, "left"), lo)
    some = hi > lo
    unit_ends = np.cumsum(-(-length // block))
    begin, end, first, total = (np.zeros_like(lo) for _ in range(4))
    a, b = lo[some], hi[some] - 1
    begin[some] = np.maximum(low[some] - at[a], 0)
    end[some] = np.minimum(high[some] - at[b], length[b])
    first[some] = -(-(np.where(a == b, end[some], length[a]) - begin[some]) // block)
    last = np.where(a == b, 0, -(-end[some] // block))
    between = np.where(b > a, unit_ends[b - 1] - unit_ends[a], 0)
    total[some] = first[some] + between + last
    span_lo = np.searchsorted(keys.span_at, low, "left")
    span_hi = np.searchsorted(keys.span_at, high, "left")
    span_units = -(-(span_hi - span_lo) // block)
    return _Seen(lo, hi, begin, end, first, unit_ends, total, span_lo, span_hi, span_units)


def _parts(units: Ints, items: int) -> Ints:
    """Into how many items each tile is cut: by the smallest share that keeps to `items`."""
    low, high = _MIN_UNITS, max(_MIN_UNITS, int(units.max()))
    while low < high:
        share = (low + high) // 2
        if int((-(-units // share)).sum()) <= items:
            high = share
        else:
            low = share + 1
    return np.maximum(-(-units // low), 1)


def _runs_of(
    items: Ints, keys: KeyLayout, seen: _Seen, of: Ints, begin: Ints, end: Ints, block: int
) -> None:
    """Fill in the runs of items that take units [begin, end) of tiles `of`."""
    some = np.flatnonzero(begin < np.minimum(end, seen.run_units[of]))
    tile = of[some]
    low, last = begin[some], np.minimum(end[some], seen.run_units[tile]) - 1
    run_a, at_a = _place(seen, tile, low, block, keys.runs[:, 1])
    run_b, at_b = _place(seen, tile, last, block, keys.runs[:, 1])
    limit = np.where(run_b == seen.run_hi[tile] - 1, seen.end[tile], keys.runs[run_b, 1])
    items[some, 2], items[some, 3] = run_a, run_b + 1
    items[some, 4], items[some, 5] = at_a, np.minimum(at_b + block, limit)


def _place(seen: _Seen, tile: Ints, unit: Ints, block: int, length: Ints) -> tuple[Ints, Ints]:
    """The run in which a tile's unit lies, and the token at which it begins."""
    lo, first = seen.run_lo[tile], seen.first_units[tile]
    past = seen.unit_ends[lo] + unit - first
    run = np.where(unit < first, lo, np.searchsorted(seen.unit_ends, past, "right"))
    before = seen.unit_ends[run] - -(-length[run] // block)
    at = np.where(unit < first, seen.begin[tile] + unit * block, (past - before) * block)
    return run, at


def _spans_of(items: Ints, seen: _Seen, of: Ints, begin: Ints, end: Ints, block: int) -> None:
    """Fill in the span tokens of items that take units [begin, end) of tiles `of`."""
    low = np.maximum(begin - seen.run_units[of], 0) * block
    high = np.maximum(end - seen.run_units[of], 0) * block
    items[:, 6] = np.minimum(seen.span_lo[of] + low, seen.span_hi[of])
    items[:, 7] = np.minimum(seen.span_lo[of] + high, seen.span_hi[of])


def _merges(tiles: _Tiles, parts: Ints, queries: int) -> Ints:
    """For every query row the partial rows that make it up, one each `queries` rows."""
    first = np.repeat((np.cumsum(parts) - parts) * queries, tiles.size)
    step = np.arange(len(first)) - np.repeat(np.cumsum(tiles.size) - tiles.size, tiles.size)
    row = np.repeat(tiles.row, tiles.size) + step
    return np.stack([row, first + step, np.repeat(parts, tiles.size), np.zeros_like(row)], 1)
