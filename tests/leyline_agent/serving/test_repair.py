"""Which kept tokens REPAIR computes again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode, apply, check, kept_runs
from leyline_agent.serving.repair import Repair, RepairConfig, choose_repair

LONG = tuple(range(1000, 1200))
NOTHING = RepairConfig(window=0, max_echo=0, tail=0)


def repair(start, end, replacement=()):
    return Directive(start, end, tuple(replacement), Mode.REPAIR)


def test_no_repair_without_a_repair_directive():
    cuts = [Directive(5, 10), Directive(30, 40, (), Mode.FORGET)]
    assert choose_repair(LONG, cuts, 0, RepairConfig()) == Repair()


def test_the_boundary_is_the_start_of_each_run_behind_a_repair():
    cuts = [Directive(10, 20), repair(50, 60, [1, 2]), repair(100, 100, [3])]
    kinds = choose_repair(LONG, cuts, 0, RepairConfig(window=4, tail=0)).kinds
    # The first two move by -10 and -18, the third by -17.
    assert kinds["boundary"] == {42, 43, 44, 45, 83, 84, 85, 86}
    assert kinds["echo"] == kinds["tail"] == frozenset()


def test_a_run_shorter_than_the_window():
    cuts = [repair(10, 20), repair(23, 30)]
    kinds = choose_repair(LONG, cuts, 0, RepairConfig(window=8, tail=0)).kinds
    assert kinds["boundary"] == {10, 11, 12, *range(13, 21)}


def test_the_boundary_lies_behind_an_edit_that_follows_at_once():
    """Nothing is kept between the two, so the run behind both is the repaired one's too."""
    cuts = [repair(10, 20), Directive(20, 30)]
    kinds = choose_repair(LONG, cuts, 0, RepairConfig(window=3, tail=0)).kinds
    assert kinds["boundary"] == {10, 11, 12}


def test_nothing_behind_a_forget_is_repaired():
    cuts = [repair(10, 20), Directive(100, 110, (), Mode.FORGET)]
    positions = choose_repair(LONG, cuts, 0, RepairConfig(window=4, tail=20)).positions
    assert positions == {10, 11, 12, 13, *range(70, 90)}


def test_echoes_are_tokens_in_a_run_that_repeats_the_removed_span():
    removed = (1, 2, 3, 4, 5, 6)
    previous = (*range(100, 110), *removed, *range(200, 210), 2, 3, 4, 5, 9, 3, 4, 5, 7, 7)
    cut = repair(10, 16)
    config = RepairConfig(window=0, ngram=4, tail=0)
    assert choose_repair(previous, [cut], 0, config).kinds["echo"] == {20, 21, 22, 23}
    shorter = RepairConfig(window=0, ngram=3, tail=0)
    assert choose_repair(previous, [cut], 0, shorter).kinds["echo"] == {20, 21, 22, 23, 25, 26, 27}


def test_echoes_in_front_of_the_removed_span_are_canonical_and_stay():
    previous = (1, 2, 3, 4, 5, *range(100, 150), 1, 2, 3, 4, 5, *range(200, 240))
    kinds = choose_repair(previous, [repair(55, 60)], 0, RepairConfig(window=0, tail=0)).kinds
    assert kinds["echo"] == frozenset()


def test_only_so_many_echoes():
    previous = (*[7] * 20, *range(100, 110), *[7] * 300)
    config = RepairConfig(window=0, max_echo=50, tail=0)
    kinds = choose_repair(previous, [repair(0, 20)], 0, config).kinds
    assert kinds["echo"] == set(range(10, 60))


@pytest.mark.parametrize(("appended", "expected"), [(0, 30), (20, 10), (30, 0), (99, 0)])
def test_new_text_stands_in_for_the_tail(appended, expected):
    config = RepairConfig(window=0, max_echo=0, tail=30)
    kinds = choose_repair(LONG, [repair(10, 20)], appended, config).kinds
    assert kinds["tail"] == set(range(190 - expected, 190))


def test_the_tail_spans_runs():
    cuts = [repair(10, 20), Directive(195, 197)]
    config = RepairConfig(window=0, max_echo=0, tail=5)
    assert choose_repair(LONG, cuts, 0, config).kinds["tail"] == {183, 184, 185, 186, 187}


def test_a_span_shorter_than_an_ngram_has_no_echoes():
    kinds = choose_repair((1, 2, *LONG, 1, 2), [repair(0, 2)], 0, RepairConfig(tail=0)).kinds
    assert kinds["echo"] == frozenset()


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=80),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 20), st.sampled_from(Mode)), max_size=4),
    st.integers(0, 30),
    st.builds(
        RepairConfig,
        window=st.integers(0, 6),
        ngram=st.integers(1, 4),
        max_echo=st.integers(0, 20),
        tail=st.integers(0, 20),
    ),
)
@settings(deadline=None, max_examples=150)
def test_properties(previous, spans, appended, config):
    directives, cursor = [], 0
    for start, size, mode in sorted(spans):
        start = max(start, cursor)
        if start + size <= len(previous):
            directives.append(Directive(start, start + size, (9,) * (start % 3), mode))
            cursor = start + size + 1
        if mode is Mode.FORGET:
            break  # behind it there is nothing to repair
    directives = list(check(directives, len(previous)))
    found = choose_repair(previous, directives, appended, config)
    new = apply(previous, directives)
    forgotten = next((d.start for d in directives if d.mode is Mode.FORGET), len(previous))
    first = next((d.end for d in directives if d.mode is Mode.REPAIR), len(previous))
    kept = {
        old + run.shift: old
        for run in kept_runs(directives, len(previous))
        for old in range(run.start, run.end)
        if first <= old < forgotten
    }
    assert found.positions <= kept.keys()
    assert all(new[position] == previous[kept[position]] for position in found.positions)
    assert sum(map(len, found.kinds.values())) == len(found.positions)
    assert len(found.kinds.get("echo", ())) <= config.max_echo
    assert len(found.kinds.get("tail", ())) <= max(0, config.tail - appended)
    assert check_echoes(previous, directives, kept, config) >= found.kinds.get("echo", frozenset())


def check_echoes(previous, directives, kept, config):
    """Every kept position inside an n-gram that a repaired span held too."""
    size = config.ngram
    grams = {
        tuple(previous[at : at + size])
        for d in directives
        if d.mode is Mode.REPAIR
        for at in range(d.start, d.end - size + 1)
    }
    result = set()
    for new, old in kept.items():
        inside = [kept.get(new + i) == old + i for i in range(size)]
        if all(inside) and tuple(previous[old : old + size]) in grams:
            result.update(range(new, new + size))
    return result
