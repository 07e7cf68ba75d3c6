"""Sequences: growing, cutting, forking; who holds which slot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.errors import OutOfSlots
from leyline_agent.serving.kv.sequence import (
    CLEAN,
    CachedSequence,
    Segment,
    append_segment,
    slice_segments,
)
from leyline_agent.serving.kv.slots import SlotPool

SAW = frozenset({"1.0"})


def flat(segments):
    """One entry a token: slot, offset, what it absorbed."""
    return [(s.slot + i, s.offset, s.saw) for s in segments for i in range(s.length)]


@pytest.fixture
def pool():
    return SlotPool(32)


def test_extending_grows_one_segment_in_place(pool):
    sequence = CachedSequence(pool)
    sequence.extend([1, 2, 3])
    sequence.extend([4])
    assert sequence.tokens == [1, 2, 3, 4]
    assert sequence.segments == [Segment(0, 4)]
    assert pool.positions[:4].tolist() == [0, 1, 2, 3]


def test_extending_around_a_neighbour_makes_a_second_segment(pool):
    sequence = CachedSequence(pool)
    sequence.extend([1, 2])
    pool.allocate(2, after=2)
    sequence.extend([3, 4])
    assert len(sequence.segments) == 2
    assert [pool.positions[slot] for slot, _, _ in flat(sequence.segments)] == [0, 1, 2, 3]


def test_what_is_appended_absorbs_what_the_last_token_did(pool):
    pool.allocate(2)
    sequence = CachedSequence(pool, [1, 2], [Segment(0, 1), Segment(1, 1, -5, SAW)])
    sequence.extend([3])
    assert sequence.segments[-1] == Segment(2, 1, 0, SAW)
    assert (sequence.canonical_len, sequence.saw) == (1, SAW)


def test_out_of_slots_changes_nothing(pool):
    sequence = CachedSequence(pool)
    sequence.extend(range(30))
    with pytest.raises(OutOfSlots):
        sequence.extend(range(3))
    assert (len(sequence), pool.num_used) == (30, 30)


def test_truncating_gives_slots_back(pool):
    sequence = CachedSequence(pool)
    sequence.extend(range(10))
    sequence.truncate(4)
    assert (sequence.tokens, sequence.segments) == ([0, 1, 2, 3], [Segment(0, 4)])
    assert pool.num_used == 4
    sequence.truncate(0)
    assert (len(sequence), sequence.segments, pool.num_used) == (0, [], 0)


def test_forks_share_slots_and_part_ways(pool):
    first = CachedSequence(pool)
    first.extend(range(6))
    second = first.fork(4)
    second.extend([9])
    assert pool.references[:6].tolist() == [2, 2, 2, 2, 1, 1]
    assert second.tokens == [0, 1, 2, 3, 9]
    first.release()
    assert pool.num_used == 5
    assert first.fork().segments == []


def test_releasing_twice_is_releasing_once(pool):
    sequence = CachedSequence(pool)
    sequence.extend(range(6))
    sequence.release()
    sequence.release()
    assert (pool.num_used, len(sequence), sequence.segments) == (0, 0, [])


def test_an_empty_sequence(pool):
    sequence = CachedSequence(pool)
    assert (sequence.canonical_len, sequence.saw, sequence.extents()) == (0, CLEAN, [])


def test_first_that_saw(pool):
    segments = [Segment(0, 3), Segment(5, 2, 0, SAW), Segment(7, 2, 0, SAW | {"2.1"})]
    sequence = CachedSequence(pool, list(range(7)), segments)
    assert [sequence.first_that_saw(edit) for edit in ("1.0", "2.1", "3.0")] == [3, 5, None]


segment_lists = st.lists(
    st.builds(
        Segment,
        slot=st.integers(0, 6),
        length=st.integers(1, 4),
        offset=st.integers(-1, 1),
        saw=st.sampled_from([CLEAN, SAW]),
    ),
    max_size=6,
)


@given(segment_lists, st.integers(0, 30), st.integers(0, 30))
@settings(deadline=None)
def test_slicing(segments, start, end):
    assert flat(slice_segments(segments, start, end)) == flat(segments)[start:end]


@given(segment_lists)
@settings(deadline=None)
def test_appending_joins_only_one_run_into_one(segments):
    joined: list[Segment] = []
    for segment in segments:
        append_segment(joined, segment)
    assert flat(joined) == flat(segments)
    for left, right in zip(joined, joined[1:], strict=False):
        runs_on = left.slot + left.length == right.slot
        assert not (runs_on and (left.offset, left.saw) == (right.offset, right.saw))


def test_extents_of_a_part(pool):
    sequence = CachedSequence(pool)
    sequence.extend(range(4))
    pool.allocate(1, after=4)
    sequence.extend(range(4))
    slots = np.concatenate([np.arange(start, end) for start, end in sequence.extents(2, 6)])
    assert pool.positions[slots].tolist() == [2, 3, 4, 5]
