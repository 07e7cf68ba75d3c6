"""The slot pool: conservation, reference counts, placement, misuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leyline_agent.errors import EngineError, OutOfSlots
from leyline_agent.serving.kv.slots import Extent, SlotPool, join_extents, slice_extents

NUM_SLOTS = 48


def slots_of(extents):
    return [slot for start, end in extents for slot in range(start, end)]


class PoolMachine(RuleBasedStateMachine):
    """A pool beside a plain list of reference counts."""

    def __init__(self):
        super().__init__()
        self.pool = SlotPool(NUM_SLOTS)
        self.counts = [0] * NUM_SLOTS
        self.held: list[list[Extent]] = []  # what each holder has one reference on

    @rule(n=st.integers(0, NUM_SLOTS + 2), data=st.data())
    def allocate(self, n, data):
        free_before = self.counts.count(0)
        ends = [extents[-1].end for extents in self.held]
        after = data.draw(st.sampled_from([None, *ends]))
        if n > free_before:
            with pytest.raises(OutOfSlots, match=f"{n} slots .* {free_before} of {NUM_SLOTS}"):
                self.pool.allocate(n, after=after)
            return
        largest = max((e - s for s, e in self.pool.free_extents()), default=0)
        grows = n > 0 and after is not None and after < NUM_SLOTS and self.counts[after] == 0
        extents = self.pool.allocate(n, after=after)
        slots = slots_of(extents)
        assert len(slots) == len(set(slots)) == n
        assert all(self.counts[slot] == 0 for slot in slots)
        if grows:
            assert extents[0].start == after
        elif 0 < n <= largest:
            assert len(extents) == 1
        for slot in slots:
            self.counts[slot] = 1
        if extents:
            self.held.append(extents)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def retain(self, data):
        extents = self.part_of_a_holder(data)
        self.pool.retain(extents)
        for slot in slots_of(extents):
            self.counts[slot] += 1
        self.held.append(extents)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        extents = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        freed = self.pool.release(extents)
        expected = []
        for slot in slots_of(extents):
            self.counts[slot] -= 1
            if self.counts[slot] == 0:
                expected.append(slot)
        assert slots_of(freed) == expected

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def exclusive(self, data):
        extents = self.part_of_a_holder(data)
        alone = [slot for slot in slots_of(extents) if self.counts[slot] == 1]
        assert slots_of(self.pool.exclusive(extents)) == alone

    @rule(start=st.integers(0, NUM_SLOTS - 1), size=st.integers(1, 8))
    def touching_a_free_slot_changes_nothing(self, start, size):
        end = min(NUM_SLOTS, start + size)
        if all(self.counts[start:end]):
            return
        for misuse in (self.pool.retain, self.pool.release, self.pool.exclusive):
            with pytest.raises(EngineError, match=rf"\[{start}, {end}\)"):
                misuse([Extent(start, end)])

    def part_of_a_holder(self, data):
        extents = data.draw(st.sampled_from(self.held))
        size = len(slots_of(extents))
        start = data.draw(st.integers(0, size - 1))
        return list(slice_extents(extents, start, data.draw(st.integers(start + 1, size))))

    @invariant()
    def counts_agree(self):
        assert self.pool.references.tolist() == self.counts
        assert self.pool.num_free == self.counts.count(0)
        assert self.pool.num_free + self.pool.num_used == NUM_SLOTS

    @invariant()
    def free_runs_are_sorted_and_apart(self):
        free = self.pool.free_extents()
        assert slots_of(free) == [s for s in range(NUM_SLOTS) if self.counts[s] == 0]
        assert all(a.end < b.start for a, b in zip(free, free[1:], strict=False))


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_first_allocation_stands_at_the_front():
    assert SlotPool(100).allocate(10) == [Extent(0, 10)]


def test_second_sequence_leaves_the_first_room_to_grow():
    pool = SlotPool(100)
    pool.allocate(10)
    assert pool.allocate(10) == [Extent(50, 60)]


def test_growth_is_in_place():
    pool = SlotPool(100)
    pool.allocate(10)
    pool.allocate(10)
    assert pool.allocate(40, after=10) == [Extent(10, 50)]


def test_growth_that_does_not_fit_goes_on_elsewhere():
    pool = SlotPool(100)
    pool.allocate(10)
    pool.allocate(10)
    assert pool.allocate(60, after=10) == [Extent(10, 50), Extent(70, 90)]


def test_growth_at_the_end_of_the_pool_goes_elsewhere():
    pool = SlotPool(8)
    pool.allocate(8)
    pool.release([Extent(0, 4)])
    assert pool.allocate(2, after=8) == [Extent(0, 2)]


def test_scattered_space_is_used_largest_first():
    pool = SlotPool(20)
    pool.allocate(20)
    for run in (Extent(2, 4), Extent(7, 12), Extent(15, 18)):
        pool.release([run])
    assert pool.allocate(8) == [Extent(7, 12), Extent(15, 18)]
    assert pool.num_free == 2


def test_freed_neighbours_are_joined():
    pool = SlotPool(9)
    pool.allocate(9)
    for run in (Extent(0, 3), Extent(6, 9), Extent(3, 6)):
        pool.release([run])
    assert pool.free_extents() == [Extent(0, 9)]


def test_release_tells_what_became_free():
    pool = SlotPool(10)
    pool.allocate(10)
    pool.retain([Extent(3, 5), Extent(8, 10)])
    assert pool.release([Extent(0, 10)]) == [Extent(0, 3), Extent(5, 8)]


def test_out_of_slots_leaves_the_pool_as_it_was():
    pool = SlotPool(10)
    pool.allocate(4)
    with pytest.raises(OutOfSlots, match="7 slots are needed and 6 of 10 are free"):
        pool.allocate(7, after=4)
    assert pool.free_extents() == [Extent(4, 10)]


@pytest.mark.parametrize(
    "extent", [Extent(-1, 2), Extent(8, 11), Extent(5, 5), Extent(6, 5), Extent(4, 10)]
)
@pytest.mark.parametrize("verb", ["retain", "release", "exclusive"])
def test_misuse_names_the_extent(extent, verb):
    pool = SlotPool(10)
    pool.allocate(8)
    with pytest.raises(EngineError, match=rf"\[{extent.start}, {extent.end}\)"):
        getattr(pool, verb)([extent])
    assert pool.references.tolist() == [1] * 8 + [0] * 2


@pytest.mark.parametrize("size", [0, -5])
def test_a_pool_has_slots(size):
    with pytest.raises(EngineError, match="at least one slot"):
        SlotPool(size)


def test_negative_allocation_is_refused():
    with pytest.raises(EngineError, match="-1"):
        SlotPool(4).allocate(-1)


def test_references_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        SlotPool(4).references[0] = 1


def test_positions_are_int64_one_a_slot():
    positions = SlotPool(7).positions
    assert positions.dtype == np.int64
    assert positions.shape == (7,)


extent_lists = st.lists(
    st.tuples(st.integers(0, 30), st.integers(1, 6)).map(lambda t: Extent(t[0], t[0] + t[1])),
    max_size=6,
)


@given(extent_lists, st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_slices_are_slices(extents, start, end):
    assert slots_of(slice_extents(extents, start, end)) == slots_of(extents)[start:end]


@given(extent_lists)
@settings(deadline=None)
def test_joining_keeps_slots_and_order(extents):
    joined = list(join_extents(extents))
    assert slots_of(joined) == slots_of(extents)
    assert all(a.end != b.start for a, b in zip(joined, joined[1:], strict=False))
