import pytest

from intervals import Span, merge, subtract, total


def test_a_span_does_not_end_before_it_starts():
    with pytest.raises(ValueError, match="cannot end at 1"):
        Span(2, 1)


def test_overlapping_spans_become_one():
    assert merge([Span(4, 8), Span(0, 5)]) == [Span(0, 8)]


def test_spans_apart_stay_apart():
    assert merge([Span(6, 8), Span(0, 5)]) == [Span(0, 5), Span(6, 8)]


def test_empty_spans_vanish():
    assert merge([Span(3, 3)]) == []


def test_a_cut_in_the_middle_leaves_two():
    assert subtract([Span(0, 9)], Span(3, 5)) == [Span(0, 3), Span(5, 9)]


def test_total_counts_overlaps_once():
    assert total([Span(0, 5), Span(4, 8)]) == 8


def test_a_span_inside_a_longer_one_changes_nothing():
    assert merge([Span(0, 10), Span(2, 3), Span(4, 6)]) == [Span(0, 10)]
    assert total([Span(0, 10), Span(2, 3)]) == 10


def test_touching_spans_become_one():
    assert merge([Span(5, 8), Span(0, 5)]) == [Span(0, 8)]


def test_a_cut_behind_a_contained_span():
    assert subtract([Span(0, 10), Span(1, 2)], Span(4, 6)) == [Span(0, 4), Span(6, 10)]
