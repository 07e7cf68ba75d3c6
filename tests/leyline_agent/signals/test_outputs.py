from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.signals.outputs import WHOLE, Limit, Lines, Read, Run, covers


@st.composite
def ranges(draw: st.DrawFn) -> Lines:
    start = draw(st.integers(1, 30))
    end = draw(st.none() | st.integers(start + 1, start + 30))
    return Lines(start, end)


def members(lines: Lines, last: int = 200) -> set[int]:
    return set(range(lines.start, min(lines.end or last, last)))


@given(ranges(), ranges())
def test_contains_means_every_line(outer: Lines, inner: Lines) -> None:
    assert outer.contains(inner) == (members(inner) <= members(outer))


@given(ranges(), ranges())
def test_within_are_the_lines_of_the_file(outer: Lines, inner: Lines) -> None:
    file = list(range(1, 200))
    shown = [line for line in file if line in members(outer)]
    assert members(outer.within(inner)) == {
        line for place, line in enumerate(shown, start=1) if place in members(inner)
    }


@given(ranges())
def test_a_part_never_covers_the_whole(part: Lines) -> None:
    whole = Read("a.py")
    assert whole.covers(Read("a.py", part))
    assert Read("a.py", part).covers(whole) == (part == WHOLE)


def test_another_file_is_not_covered() -> None:
    assert not Read("a.py").covers(Read("b.py", Lines(1, 2)))


def test_an_unknown_part_is_covered_by_the_whole_or_by_the_same_question() -> None:
    tail = Read("a.py", None, ("tail", "-20", "a.py"))
    assert Read("a.py").covers(tail)
    assert tail.covers(tail)
    assert not Read("a.py", Lines(1, 500)).covers(tail)
    assert not tail.covers(Read("a.py", None, ("tail", "-30", "a.py")))
    assert not Read("a.py", None).covers(Read("a.py", None))


def test_a_clipped_read_covers_only_the_same_clipped_read() -> None:
    clipped = Read("a.py", clipped=True)
    assert not clipped.covers(Read("a.py"))
    assert not clipped.covers(Read("a.py", Lines(1, 5)))
    assert clipped.covers(clipped)
    assert Read("a.py").covers(clipped)


def test_a_run_covers_the_same_run_that_showed_no_more() -> None:
    whole, tail, longer = Run(("t",)), Run(("t",), Limit("tail", 5)), Run(("t",), Limit("tail", 9))
    assert whole.covers(tail)
    assert whole.covers(whole)
    assert longer.covers(tail)
    assert not tail.covers(longer)
    assert not tail.covers(whole)
    assert not Run(("t",), Limit("head", 9)).covers(tail)
    assert not Run(("u",)).covers(whole)


def test_pieces_of_different_kinds_never_cover_each_other() -> None:
    assert not covers(Run(("a.py",)), Read("a.py"))
    assert not covers(Read("a.py"), Run(("a.py",)))
    assert covers(Read("a.py"), Read("a.py", Lines(2, 3)))
    assert covers(Run(("x",)), Run(("x",)))
