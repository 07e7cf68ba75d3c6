"""Work lists, read the way the kernels read them: every query sees its keys, each once."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.work_list import Tiling, lay_out, make_work_list
from leyline_agent.serving.kv.sequence import Segment


def keys_of_item(item, keys, block):
    """(slot, offset, position) of every key that an item's program loads, tile by tile."""
    _, _, run_lo, run_hi, begin, end, span_lo, span_hi = item.tolist()
    for run in range(run_lo, run_hi):
        slot, length, row, position = keys.runs[run].tolist()
        low = begin if run == run_lo else 0
        high = end if run == run_hi - 1 else length
        assert 0 <= low < high <= length
        for start in range(low, high, block):
            for at in range(start, min(start + block, high)):
                yield slot + at, int(keys.offsets[row]), position + at
    for token in range(span_lo, span_hi):
        slot, row, position = keys.spans[:, token].tolist()
        yield slot, int(keys.offsets[row]), position


def check(batch, tiling, window):
    firsts = np.cumsum([0, *(len(rows.positions) for rows in batch)])[:-1] + 3
    keys = lay_out(batch, tiling.keys)
    work = make_work_list(batch, firsts.tolist(), keys, tiling, window=window)
    loaded = [list(keys_of_item(item, keys, tiling.keys)) for item in work.items]
    expected = {}
    for rows, first in zip(batch, firsts.tolist(), strict=True):
        held = [
            (segment.slot + i, segment.offset)
            for segment in rows.segments
            for i in range(segment.length)
        ]
        for at, position in enumerate(rows.positions.tolist()):
            low = 0 if window is None else max(0, position - window + 1)
            expected[first + at] = [(*held[p], p) for p in range(low, position + 1)]
    merged = {row: (first, parts) for row, first, parts, _ in work.merges.tolist()}
    assert merged.keys() == expected.keys()
    for row, seen in expected.items():
        first, parts = merged[row]
        got = []
        for partial in range(first, first + parts * tiling.queries, tiling.queries):
            item = work.items[partial // tiling.queries]
            assert item[0] + partial % tiling.queries == row
            assert partial % tiling.queries < item[1] <= tiling.queries
            got += loaded[partial // tiling.queries]
        position, low = seen[-1][2], seen[0][2]
        if tiling.queries > 1:  # the kernel's mask
            got = [key for key in got if low <= key[2] <= position]
        assert sorted(got, key=lambda key: key[2]) == seen
    return work


@st.composite
def sequences(draw):
    kind = draw(st.sampled_from(["few", "short", "mixed", "single tokens"]))
    sizes = {
        "few": st.lists(st.integers(0, 90), min_size=1, max_size=3),
        "short": st.lists(st.integers(0, 7), min_size=4, max_size=30),
        "mixed": st.lists(
            st.one_of(st.integers(0, 5), st.integers(20, 70)), min_size=3, max_size=20
        ),
        "single tokens": st.lists(st.just(1), min_size=1, max_size=50),
    }[kind]
    lengths = draw(sizes)
    if not sum(lengths):
        lengths.append(1)
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    starts = rng.permutation(len(lengths)) * 100
    offsets = rng.integers(-3, 4, len(lengths)) * 5
    segments = [
        Segment(int(slot), length, int(offset))
        for slot, length, offset in zip(starts, lengths, offsets, strict=True)
    ]
    total = sum(lengths)
    how = draw(st.sampled_from(["last", "scattered", "suffix"]))
    if how == "last":
        positions = [total - 1]
    elif how == "suffix":
        positions = range(draw(st.integers(0, total - 1)), total)
    else:
        positions = sorted(rng.choice(total, draw(st.integers(1, total)), replace=False).tolist())
    return Rows(segments, np.array(positions, np.int64))


@given(
    st.lists(sequences(), min_size=1, max_size=4),
    st.builds(
        Tiling, st.sampled_from([1, 2, 5]), st.sampled_from([4, 16]), st.sampled_from([1, 9, 99])
    ),
    st.sampled_from([None, 1, 3, 17, 1000]),
)
@example([Rows([Segment(5, 1)], np.array([0]))], Tiling(1, 16, 1), None)
@settings(deadline=None, max_examples=200)
def test_every_query_sees_its_keys_each_once(batch, tiling, window):
    check(batch, tiling, window)


@pytest.mark.parametrize("count", [1, 8, 125, 1000])
def test_short_segments_share_tiles(count):
    """32 tokens a tile: 1,000 segments of a dozen tokens fill 375 tiles, not 1,000."""
    segments = [Segment(20 * i, 12, -3 * i) for i in reversed(range(count))]
    work = check([Rows(segments, np.array([12 * count - 1]))], Tiling(1, 32, 40), None)
    run_tiles = int((-(-work.keys.runs[:, 1] // 32)).sum())
    tiles = run_tiles + -(-work.keys.spans.shape[1] // 32)
    assert tiles == -(-12 * count // 32)


def test_a_long_segment_leaves_only_its_last_tokens_to_the_spans():
    """262 tokens in tiles of 64: four whole tiles are a run, and six tokens go to a shared tile."""
    segments = [Segment(300 * i, 262, -i) for i in range(20)]
    work = check([Rows(segments, np.array([20 * 262 - 1]))], Tiling(1, 64, 1), None)
    assert work.keys.runs[:, 1].tolist() == [256] * 20
    assert work.keys.spans.shape[1] == 120


def test_sequences_of_different_lengths_are_cut_into_equal_shares():
    batch = [
        Rows([Segment(0, 64 * 90)], np.array([64 * 90 - 1])),
        Rows([Segment(8000, 64 * 9)], np.array([64 * 9 - 1])),
    ]
    work = check(batch, Tiling(1, 64, 12), None)
    sizes = [-(-len(list(keys_of_item(item, work.keys, 64))) // 64) for item in work.items]
    assert len(sizes) <= 12
    assert max(sizes) <= 10
    assert work.split


def test_enough_queries_leave_every_tile_whole():
    batch = [Rows([Segment(0, 2000)], np.arange(1000, 2000))]
    work = check(batch, Tiling(16, 64, 8), None)
    assert len(work.items) == 63
    assert not work.split


def test_a_query_behind_the_last_slot_is_refused():
    batch = [Rows([Segment(0, 9)], np.array([8])), Rows([Segment(20, 4)], np.array([4]))]
    with pytest.raises(EngineError, match="sequence 1 of the batch has 4 tokens .* position 4"):
        make_work_list(batch, [0, 1], lay_out(batch, 16), Tiling(1, 16, 1))


def test_a_slot_before_the_first_is_refused():
    with pytest.raises(EngineError, match="segments begin at slot -3"):
        lay_out([Rows([Segment(4, 9), Segment(-3, 2)], np.array([10]))], 16)
