"""The prefix tree against a dictionary from token prefixes to slots."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leyline_agent.errors import EngineError
from leyline_agent.serving.kv.slots import Extent, SlotPool, slice_extents
from leyline_agent.serving.kv.tree import Match, PrefixForest, PrefixTree

NUM_SLOTS = 96
TENANTS = ("left", "right")

token_lists = st.lists(st.integers(0, 1), min_size=1, max_size=10)


def slots_of(extents):
    return [slot for start, end in extents for slot in range(start, end)]


def contents(tree):
    """Every cached prefix and the slot of its last token; checks the nodes on the way."""
    prefixes = {id(node): () for node in tree if node.parent.parent is None}
    found = {}
    for node in tree:
        before = prefixes[id(node)]
        tokens, slots = node.tokens.tolist(), slots_of(node.extents)
        assert tokens
        assert node.tokens.dtype == np.int32
        assert len(tokens) == len(slots)
        assert node.parent.children[tokens[0]] is node
        path = before + tuple(tokens)
        for size, slot in enumerate(slots, start=len(before) + 1):
            assert path[:size] not in found
            found[path[:size]] = slot
        prefixes.update((id(child), path) for child in node.children.values())
    return found


class ForestMachine(RuleBasedStateMachine):
    """Two tenants in one pool. `cached` is what each tree ought to hold."""

    def __init__(self):
        super().__init__()
        self.pool = SlotPool(NUM_SLOTS)
        self.forest = PrefixForest(self.pool)
        self.cached = {tenant: {} for tenant in TENANTS}
        self.held: list[list[Extent]] = []

    @rule(
        tenant=st.sampled_from(TENANTS),
        path=st.integers(0),
        tokens=token_lists,
        reuse=st.booleans(),
        keep=st.booleans(),
        as_array=st.booleans(),
    )
    def insert(self, tenant, path, tokens, reuse, keep, as_array):
        """Cache a continuation of some path that is cached already."""
        tree, cached = self.forest.tree(tenant), self.cached[tenant]
        paths = [(), *cached]
        tokens = [*paths[path % len(paths)], *tokens]
        extents = list(tree.match(tokens).extents) if reuse else []
        self.pool.retain(extents)
        missing = len(tokens) - len(slots_of(extents))
        if missing > self.pool.num_free:
            self.pool.release(extents)
            return
        extents += self.pool.allocate(missing)
        present = tree.insert(np.array(tokens) if as_array else tokens, extents)
        assert present == self.longest(tenant, tokens)
        for size, slot in enumerate(slots_of(extents), start=1):
            cached.setdefault(tuple(tokens[:size]), slot)
        if keep:
            self.held.append(extents)
        else:
            self.pool.release(extents)

    @rule(tenant=st.sampled_from(TENANTS), tokens=token_lists)
    def match(self, tenant, tokens):
        length, extents = self.forest.tree(tenant).match(tokens)
        assert length == self.longest(tenant, tokens)
        cached = self.cached[tenant]
        assert slots_of(extents) == [cached[tuple(tokens[: i + 1])] for i in range(length)]
        assert all(a.end != b.start for a, b in zip(extents, extents[1:], strict=False))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release_some_of_a_holder(self, data):
        extents = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        size = len(slots_of(extents))
        start = data.draw(st.integers(0, size))
        end = data.draw(st.integers(start, size))
        self.pool.release(slice_extents(extents, start, end))
        rest = [*slice_extents(extents, 0, start), *slice_extents(extents, end, size)]
        if rest:
            self.held.append(rest)

    @rule(n=st.integers(0, 20))
    def evict(self, n):
        held = {slot for extents in self.held for slot in slots_of(extents)}
        alone = {slot for c in self.cached.values() for slot in c.values()} - held
        free_before = self.pool.num_free
        assert self.forest.evict(n) == min(n, len(alone))
        assert self.pool.num_free - free_before == min(n, len(alone))
        for tenant, before in self.cached.items():
            after = contents(self.forest.tree(tenant))
            assert after.items() <= before.items()
            self.cached[tenant] = after

    @rule(tenant=st.sampled_from(TENANTS), start=st.integers(0, NUM_SLOTS - 1))
    def remove(self, tenant, start):
        scrubbed = Extent(start, min(NUM_SLOTS, start + 3))
        before = self.cached[tenant]
        hit = {path for path, slot in before.items() if scrubbed.start <= slot < scrubbed.end}
        after = {
            path: slot
            for path, slot in before.items()
            if not any(path[:size] in hit for size in range(1, len(path) + 1))
        }
        assert self.forest.tree(tenant).remove([scrubbed]) == len(before) - len(after)
        self.cached[tenant] = after

    @rule(tenant=st.sampled_from(TENANTS))
    def clear(self, tenant):
        self.forest.tree(tenant).clear()
        self.cached[tenant] = {}

    def longest(self, tenant, tokens):
        length = 0
        while length < len(tokens) and tuple(tokens[: length + 1]) in self.cached[tenant]:
            length += 1
        return length

    @invariant()
    def trees_hold_what_they_ought(self):
        for tenant, cached in self.cached.items():
            assert contents(self.forest.tree(tenant)) == cached
            assert self.forest.tree(tenant).num_tokens == len(cached)
        assert self.forest.num_tokens == sum(map(len, self.cached.values()))

    @invariant()
    def references_add_up(self):
        counts = np.zeros(NUM_SLOTS, int)
        for extents in self.held:
            np.add.at(counts, slots_of(extents), 1)
        for cached in self.cached.values():
            np.add.at(counts, list(cached.values()), 1)
        assert self.pool.references.tolist() == counts.tolist()


TestForest = ForestMachine.TestCase
TestForest.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.fixture
def pool():
    return SlotPool(100)


@pytest.fixture
def tree(pool):
    return PrefixTree(pool)


def add(pool, tree, tokens):
    """Compute `tokens` and leave them to the tree alone; the slots."""
    extents = pool.allocate(len(tokens))
    tree.insert(tokens, extents)
    pool.release(extents)
    return extents


def test_nothing_is_cached_at_first(tree):
    assert tree.match([1, 2, 3]) == Match(0, ())
    assert (len(tree), tree.num_tokens) == (0, 0)


def test_no_tokens_match_nothing(pool, tree):
    add(pool, tree, [1, 2])
    assert tree.match([]) == Match(0, ())
    assert tree.insert([], []) == 0


def test_a_match_ends_inside_a_node_without_splitting_it(pool, tree):
    [extent] = add(pool, tree, [1, 2, 3, 4])
    assert tree.match([1, 2, 9]) == Match(2, (Extent(extent.start, extent.start + 2),))
    assert len(tree) == 1


def test_appending_makes_a_child_and_one_extent(pool, tree):
    extents = pool.allocate(4)
    tree.insert([1, 2, 3, 4], extents)
    longer = extents + pool.allocate(2, after=extents[-1].end)
    assert tree.insert([1, 2, 3, 4, 5, 6], longer) == 4
    assert len(tree) == 2
    assert tree.match([1, 2, 3, 4, 5, 6]) == Match(6, (Extent(0, 6),))


def test_the_first_copy_of_a_prefix_stays(pool, tree):
    [first] = add(pool, tree, [1, 2, 3])
    own = pool.allocate(4)
    assert tree.insert([1, 2, 7, 8], own) == 2
    assert tree.match([1, 2, 7, 8]).extents[0] == Extent(first.start, first.start + 2)
    pool.release(own)
    assert pool.num_used == 5  # the two doubled tokens went with their owner


def test_a_match_takes_no_references(pool, tree):
    add(pool, tree, [1, 2, 3])
    tree.match([1, 2, 3])
    assert tree.evict(3) == 3


def test_insert_wants_a_slot_a_token(pool, tree):
    with pytest.raises(EngineError, match="3 tokens in 2 slots"):
        tree.insert([1, 2, 3], pool.allocate(2))
    assert len(tree) == 0


def test_insert_wants_slots_in_use(tree):
    with pytest.raises(EngineError, match="slot 0 is free"):
        tree.insert([1, 2, 3], [Extent(0, 3)])
    assert len(tree) == 0


def test_the_caller_may_change_its_tokens_afterwards(pool, tree):
    tokens = np.array([1, 2, 3], np.int32)
    tree.insert(tokens, pool.allocate(3))
    tokens[:] = 9
    assert tree.match([1, 2, 3]).length == 3


def test_eviction_takes_the_least_recently_used_leaf_from_its_end(pool, tree):
    add(pool, tree, [1, 1, 1, 1])
    add(pool, tree, [2, 2, 2, 2])
    tree.match([1])
    assert tree.evict(3) == 3
    assert tree.match([2, 2, 2, 2]).length == 1
    assert tree.match([1, 1, 1, 1]).length == 4


def test_inserting_counts_as_use(pool, tree):
    add(pool, tree, [1, 1])
    add(pool, tree, [2, 2])
    add(pool, tree, [1, 1])
    tree.evict(2)
    assert tree.match([1, 1]).length == 2


def test_leaves_go_before_their_parents(pool, tree):
    add(pool, tree, [5, 5, 1, 1])
    add(pool, tree, [5, 5, 2, 2])
    add(pool, tree, [7, 7])
    tree.match([5, 5, 1, 1])
    tree.match([7, 7])
    assert tree.evict(4) == 4
    assert [tree.match(t).length for t in ([5, 5, 1, 1], [5, 5, 2, 2], [7, 7])] == [2, 2, 2]


def test_held_slots_are_kept_and_not_counted(pool, tree):
    held = pool.allocate(4)
    tree.insert([1, 2, 3, 4], held)
    assert tree.evict(10) == 0
    assert tree.match([1, 2, 3, 4]).length == 4


def test_only_the_part_nobody_holds_is_evicted(pool, tree):
    held = pool.allocate(6)
    tree.insert([1, 2, 3, 4, 5, 6], held)
    pool.release(slice_extents(held, 4, 6))
    assert tree.evict(10) == 2
    assert tree.match([1, 2, 3, 4, 5, 6]).length == 4


def test_a_held_suffix_goes_when_the_span_before_it_can_be_freed(pool, tree):
    """After a splice the session holds prefix and suffix; the removed span is the tree's alone."""
    extents = pool.allocate(6)
    tree.insert([1, 2], list(slice_extents(extents, 0, 2)))
    tree.insert([1, 2, 3, 4], list(slice_extents(extents, 0, 4)))
    tree.insert([1, 2, 3, 4, 5, 6], extents)
    pool.release(slice_extents(extents, 2, 4))
    assert tree.evict(10) == 2
    assert tree.match([1, 2, 3, 4, 5, 6]).length == 2
    assert pool.references[:6].tolist() == [2, 2, 0, 0, 1, 1]


def test_a_held_chain_goes_when_the_span_above_it_can_be_freed(pool, tree):
    extents = pool.allocate(6)
    for length in (2, 4, 6):
        tree.insert([1, 2, 3, 4, 5, 6][:length], list(slice_extents(extents, 0, length)))
    pool.release(slice_extents(extents, 0, 2))
    assert tree.evict(1) == 1
    assert tree.match([1, 2, 3, 4, 5, 6]).length == 1


def test_a_held_suffix_stays_while_others_can_be_freed(pool, tree):
    extents = pool.allocate(4)
    tree.insert([1, 2], list(slice_extents(extents, 0, 2)))
    tree.insert([1, 2, 3, 4], extents)
    pool.release(slice_extents(extents, 0, 2))
    add(pool, tree, [8, 8, 8])
    assert tree.evict(3) == 3
    assert tree.match([1, 2, 3, 4]).length == 4


def test_evicting_nothing(pool, tree):
    add(pool, tree, [1, 2])
    assert tree.evict(0) == 0
    assert tree.num_tokens == 2


def test_remove_keeps_what_stands_before_the_span(pool, tree):
    [system] = add(pool, tree, [1, 2, 3, 4])
    extents = [system, *pool.allocate(2)]
    tree.insert([1, 2, 3, 4, 5, 6], extents)
    assert tree.remove([Extent(system.start + 2, system.start + 3)]) == 4
    assert tree.match([1, 2, 3, 4, 5, 6]).length == 2


def test_remove_leaves_other_branches(pool, tree):
    add(pool, tree, [1, 2, 3])
    [own] = pool.allocate(3)
    tree.insert([1, 2, 4], [own])
    assert tree.remove([Extent(own.end - 1, own.end)]) == 1
    assert tree.match([1, 2, 3]).length == 3
    assert tree.remove([Extent(90, 100)]) == 0


def test_remove_then_insert_anew(pool, tree):
    [extent] = add(pool, tree, [1, 2, 3])
    assert tree.remove([extent]) == 3
    assert len(tree) == 0
    add(pool, tree, [1, 2, 3])
    assert tree.match([1, 2, 3]).length == 3


def test_clear_gives_everything_back(pool, tree):
    add(pool, tree, [1, 2, 3])
    add(pool, tree, [1, 2, 4])
    tree.clear()
    assert (len(tree), pool.num_used) == (0, 0)


def test_tenants_never_see_each_other(pool):
    forest = PrefixForest(pool)
    add(pool, forest.tree("a"), [1, 2, 3])
    assert forest.tree("b").match([1, 2, 3]) == Match(0, ())
    assert forest.tree("").match([1, 2, 3]) == Match(0, ())
    assert forest.tree("a").match([1, 2, 3]).length == 3


def test_a_tenant_keeps_its_tree(pool):
    forest = PrefixForest(pool)
    assert forest.tree("a") is forest.tree("a")


def test_forest_evicts_the_least_recently_used_of_all(pool):
    forest = PrefixForest(pool)
    add(pool, forest.tree("a"), [1, 1])
    add(pool, forest.tree("b"), [1, 1])
    add(pool, forest.tree("c"), [1, 1])
    forest.tree("a").match([1, 1])
    assert forest.evict(3) == 3
    assert [forest.tree(t).num_tokens for t in "abc"] == [2, 0, 1]
    assert forest.num_tokens == 3


def test_deep_paths():
    pool = SlotPool(5_000)
    tree = PrefixTree(pool)
    extents = pool.allocate(3_600)
    tokens = np.arange(3_600)
    for length in range(3, 3_601, 3):  # deeper than Python's recursion limit
        tree.insert(tokens[:length], list(slice_extents(extents, 0, length)))
    assert len(tree) == 1_200
    assert tree.match(tokens.tolist()) == Match(3_600, (Extent(0, 3_600),))
    pool.release(extents)
    assert tree.evict(3_599) == 3_599
    assert tree.match(tokens).length == 1


def test_a_dropped_tenant_gives_up_its_slots_and_no_others(pool):
    forest = PrefixForest(pool)
    add(pool, forest.tree("a"), [1, 2, 3])
    add(pool, forest.tree("b"), [4, 5])
    forest.drop("a")
    forest.drop("never seen")
    assert (forest.num_tokens, pool.num_used) == (2, 2)
    assert forest.tree("a").match([1, 2, 3]) == Match(0, ())
