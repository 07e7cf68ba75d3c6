"""Splices against a model that follows every token by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode, apply, check
from leyline_agent.errors import OutOfSlots
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent, SlotPool
from leyline_agent.serving.kv.splice import kept_pieces, splice

NUM_SLOTS = 160


def flat(segments):
    """One entry a token: slot, offset, what it absorbed."""
    return [(s.slot + i, s.offset, s.saw) for s in segments for i in range(s.length)]


def kept_tokens(previous, directives, ids):
    """By new position: the slot that holds the token, and what it has absorbed."""
    kept, at, cursor, absorbed = {}, 0, 0, frozenset()
    tokens = flat(previous.segments)

    def keep(start, end, at):
        for i, (slot, _, saw) in enumerate(tokens[start:end]):
            kept[at + i] = (slot, saw | absorbed)

    for directive, edit_id in zip(directives, ids, strict=True):
        keep(cursor, directive.start, at)
        at += directive.start - cursor
        if directive.mode is Mode.FORGET:
            return kept
        absorbed |= {edit_id}
        at += len(directive.replacement)
        cursor = directive.end
    keep(cursor, len(tokens), at)
    return kept


def check_sequence(pool, sequence):
    """What holds of every sequence: a slot a token, each standing where its offset says."""
    tokens = flat(sequence.segments)
    assert len(tokens) == len(sequence.tokens)
    absorbed = frozenset()
    for position, (slot, offset, saw) in enumerate(tokens):
        assert pool.positions[slot] + offset == position
        assert saw >= absorbed
        absorbed = saw


@st.composite
def batches(draw, length):
    """A legal batch of directives on `length` tokens."""
    cuts = sorted(draw(st.lists(st.integers(0, length), max_size=6)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    replacements = st.lists(st.integers(100, 103), max_size=4).map(tuple)
    modes = st.sampled_from([Mode.AMORTIZE, Mode.AMORTIZE, Mode.REPAIR, Mode.FORGET])
    made = [Directive(start, end, draw(replacements), draw(modes)) for start, end in spans]
    legal = []
    for directive in made:
        if not legal or directive.start >= legal[-1].end and directive[:2] != legal[-1][:2]:
            legal.append(directive)
    return list(check(legal, length))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_chain_of_commits(data):
    """Several commits on one session; each also appends, repairs and may find a cached prefix."""
    pool = SlotPool(NUM_SLOTS)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(data.draw(st.integers(1, 20)))))
    for version in range(data.draw(st.integers(1, 4))):
        length = len(sequence)
        directives = data.draw(batches(length))
        ids = [f"{version}.{i}" for i in range(len(directives))]
        tokens = apply(sequence.tokens, directives) + data.draw(
            st.lists(st.integers(200, 203), min_size=1, max_size=4)
        )
        kept = kept_tokens(sequence, directives, ids)
        repair = data.draw(st.frozensets(st.integers(0, len(tokens) - 1), max_size=6))
        exact_len = data.draw(st.integers(0, len(tokens)))
        exact = pool.allocate(exact_len)
        pool.positions[slots(exact)] = np.arange(exact_len)
        before = pool.references.copy()

        pieces = kept_pieces(sequence, directives, ids)
        done = splice(pool, list(tokens), pieces, exact, repair)

        assert done.sequence.tokens == tokens
        check_sequence(pool, done.sequence)
        check_reuse(pool, done, kept, slots(exact), repair, before)
        sequence.release()
        pool.release(exact)
        sequence = done.sequence
        assert pool.num_used == len(sequence)
    sequence.release()
    assert pool.num_used == 0


def slots(extents):
    return [slot for start, end in extents for slot in range(start, end)]


def check_reuse(pool, done, kept, exact, repair, before):
    """Every token is where it ought to come from, and the counts say so."""
    clean = 0
    while clean in kept and not kept[clean][1]:
        clean += 1
    if len(exact) > clean:  # a longer canonical prefix wins
        kept = kept | {position: (slot, frozenset()) for position, slot in enumerate(exact)}
        clean = len(exact)
    last = len(done.sequence) - 1
    computed = [p for p in range(last + 1) if p not in kept or p == last]
    computed = sorted({*computed, *(p for p in repair if p >= clean)})
    assert done.fresh.dtype == np.int64
    tokens = flat(done.sequence.segments)
    for position, (slot, _, saw) in enumerate(tokens):
        if position in kept and position not in computed:
            assert slot == kept[position][0]
            assert saw >= kept[position][1]
            assert pool.references[slot] == before[slot] + 1
    assert done.fresh.tolist() == computed
    for position in computed:
        slot, offset, _ = tokens[position]
        assert (before[slot], pool.references[slot], offset) == (0, 1, 0)
    reused = [kept[p][1] for p in range(last + 1) if p not in computed]
    assert done.spliced == sum(map(bool, reused))
    assert done.exact == len(reused) - done.spliced


def test_no_kv_moves_and_the_suffix_shifts():
    pool = SlotPool(100)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(50)))
    edit = Directive(10, 30, (7, 7), Mode.AMORTIZE)
    done = splice(pool, apply(sequence.tokens, [edit]), kept_pieces(sequence, [edit], ["1.0"]))
    assert done.sequence.extents(12, 31) == [Extent(30, 49)]
    assert {offset for _, offset, _ in flat(done.sequence.segments)[12:31]} == {-18}
    assert done.fresh.tolist() == [10, 11, 31]
    assert (done.exact, done.spliced) == (10, 19)


def test_behind_forget_nothing_is_kept():
    pool = SlotPool(100)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(50)))
    edits = [Directive(5, 8, (), Mode.AMORTIZE), Directive(20, 21, (), Mode.FORGET)]
    done = splice(pool, apply(sequence.tokens, edits), kept_pieces(sequence, edits, ["a", "b"]))
    assert done.fresh.tolist() == list(range(17, 46))
    assert (done.exact, done.spliced) == (5, 12)
    assert done.sequence.first_that_saw("b") is None


def test_what_is_computed_behind_a_splice_absorbs_it():
    pool = SlotPool(100)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(20)))
    edit = Directive(5, 10, (), Mode.AMORTIZE)
    tokens = [*apply(sequence.tokens, [edit]), 1, 2]
    done = splice(pool, tokens, kept_pieces(sequence, [edit], ["1.0"]))
    assert done.sequence.canonical_len == 5
    assert done.sequence.saw == {"1.0"}


def test_repair_leaves_the_canonical_prefix_alone():
    pool = SlotPool(100)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(20)))
    edit = Directive(5, 10, (), Mode.REPAIR)
    pieces = kept_pieces(sequence, [edit], ["1.0"])
    done = splice(pool, apply(sequence.tokens, [edit]), pieces, repair=frozenset({2, 5, 6}))
    assert done.fresh.tolist() == [5, 6, 14]


def test_appended_tokens_grow_the_last_segment():
    pool = SlotPool(100)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(20)))
    done = splice(pool, [*range(20), 1, 2, 3], kept_pieces(sequence, [], []))
    assert [s.extent for s in done.sequence.segments] == [Extent(0, 23)]
    assert done.fresh.tolist() == [20, 21, 22]


def test_a_prompt_of_its_own():
    pool = SlotPool(10)
    done = splice(pool, [1, 2, 3])
    assert (done.fresh.tolist(), done.exact, done.spliced) == ([0, 1, 2], 0, 0)
    check_sequence(pool, done.sequence)


def test_out_of_slots_holds_nothing():
    pool = SlotPool(30)
    sequence = CachedSequence(pool)
    sequence.extend(list(range(20)))
    edit = Directive(5, 10, (1,) * 10, Mode.AMORTIZE)
    before = pool.references.copy()
    with pytest.raises(OutOfSlots, match="11 slots"):
        splice(pool, apply(sequence.tokens, [edit]), kept_pieces(sequence, [edit], ["1.0"]))
    assert np.array_equal(pool.references, before)
