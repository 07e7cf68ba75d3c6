"""Which cells are found where, and moves that never catch one another's cells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leyline_adapters.llama_cpp.tape import HOLE, Move, found, gaps, in_order


@st.composite
def layouts(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Births on a tape, and births wanted: some of them in their order, with holes between."""
    size = draw(st.integers(0, 30))
    births = list(range(1, size + 1))
    wanted: list[int] = []
    for birth in births:
        wanted.extend([HOLE] * draw(st.sampled_from([0, 0, 0, 1, 5])))
        if draw(st.integers(0, 3)):
            wanted.append(birth)
    return births, wanted


@given(layouts())
def test_every_cell_in_order_is_found(layout: tuple[list[int], list[int]]) -> None:
    births, wanted = layout
    moves = found(wanted, births, set(), 0)
    placed = {place + shift: births[place] for s, e, shift in moves for place in range(s, e)}
    assert placed == {i: birth for i, birth in enumerate(wanted) if birth != HOLE}
    taken = {place for s, e, _ in moves for place in range(s, e)}
    free = {place for s, e in gaps(moves, len(births)) for place in range(s, e)}
    assert taken | free == set(range(len(births)))
    assert not taken & free


@given(layouts())
def test_moves_in_order_catch_no_other_cells(layout: tuple[list[int], list[int]]) -> None:
    births, wanted = layout
    moves = found(wanted, births, set(), 0)
    standing = {place: births[place] for s, e, _ in moves for place in range(s, e)}
    for start, end, shift in in_order(moves):
        moving = {p: b for p, b in standing.items() if start <= p < end}  # as llama.cpp selects
        for position in moving:
            del standing[position]
        for position, birth in moving.items():
            assert position + shift not in standing
            standing[position + shift] = birth
    assert standing == {i: birth for i, birth in enumerate(wanted) if birth != HOLE}


def test_cells_out_of_order_are_computed_again() -> None:
    assert found([2, 1, 3], [1, 2, 3], set(), 0) == [Move(1, 2, -1), Move(2, 3, 0)]


def test_what_must_be_as_a_prefill_left_it_is_neither_moved_nor_was() -> None:
    assert found([5, 7], [5, 6, 7], set(), 2) == [Move(0, 1, 0)]
    assert found([5, 7], [5, 6, 7], set(), 1) == [Move(0, 1, 0), Move(2, 3, -1)]
    assert found([5, 6], [5, 6], {6}, 2) == [Move(0, 1, 0)]
    assert found([5, 6], [5, 6], {6}, 1) == [Move(0, 2, 0)]
