"""The difference that a plan can see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_evals.solve import words
from leyline_evals.solve.config import Registration
from leyline_evals.solve.power import _nearly, _p_values, detectable, power_of, told
from leyline_evals.solve.statistics import permutation


def test_more_tasks_and_more_seeds_see_less() -> None:
    by_tasks = [detectable(tasks, 4) or 1.0 for tasks in (8, 16, 32)]
    by_seeds = [detectable(12, seeds) or 1.0 for seeds in (1, 4, 8)]
    assert by_tasks == sorted(by_tasks, reverse=True)
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert by_tasks[2] < by_tasks[0] / 1.5


def test_five_tasks_see_nothing() -> None:
    """The exact test of five tasks is never below 0.0625."""
    assert detectable(5, 50) is None
    assert detectable(5, 50, alpha=0.07, rate=0.2, icc=0.0) is not None


def test_the_level_is_kept() -> None:
    assert power_of(12, 3, 0.0, rate=0.5, icc=0.3) < 0.05 + 0.02


def test_what_is_detectable_is_found_that_often() -> None:
    found = detectable(16, 4, rate=0.3, icc=0.2)
    assert found is not None
    assert power_of(16, 4, found, rate=0.3, icc=0.2) == pytest.approx(0.8, abs=0.03)
    assert power_of(16, 4, found / 2, rate=0.3, icc=0.2) < 0.4


def test_a_high_rate_is_lowered() -> None:
    """Above a rate of 0.9 there is no room for a difference upwards."""
    assert detectable(12, 4, rate=0.9) is None
    found = detectable(20, 4, rate=0.9, icc=0.1, fall=True)
    assert found is not None
    assert found > 0.1


@settings(max_examples=10, deadline=None)
@given(st.floats(0.3, 0.7), st.integers(16, 24))
def test_a_fall_is_the_rise_of_what_is_not_solved(rate: float, tasks: int) -> None:
    fall, rise = detectable(tasks, 4, rate=rate, fall=True), detectable(tasks, 4, rate=1 - rate)
    assert fall is not None
    assert 0 < fall <= rate
    assert fall == pytest.approx(rise, abs=0.05)


def test_an_effect_that_differs_between_tasks_is_harder_to_see() -> None:
    assert power_of(12, 4, 0.3, rate=0.5, icc=0.0) < 0.73, "0.75 where all gain alike"


def test_a_plan_says_both_directions_and_where_one_cannot_be_seen() -> None:
    asked = Registration(first="a", second="b", rate=0.4)
    both, rise = (words.seen(tasks, 4, told(asked, tasks, 4)) for tasks in (12, 8))
    assert "a rise of 35 points or more, to 75%, or a fall of 32 points or more, to 8% (" in both
    assert "a rise of 48 points or more, to 88%, but no fall, however large (80% of" in rise
    five = told(asked, 5, 4)
    assert (five.rise, five.fall, five.detectable) == (None, None, None)
    assert "no difference can be seen" in words.seen(5, 4, five)
    earlier = asked.model_copy(update={"detectable": 0.31})
    assert "you can see differences above 31 points" in words.seen(12, 4, earlier)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=5))
def test_many_tests_at_once_are_each_of_them(rows: list[list[int]]) -> None:
    found = _p_values(np.array(rows), 3)
    assert found == pytest.approx([permutation(row) for row in rows], abs=1e-12)


def test_large_plans_are_nearly_exact() -> None:
    rows = np.random.default_rng(0).integers(-3, 4, (50, 120))
    exact = np.array([permutation(row.tolist()) for row in rows])
    assert _nearly(rows) == pytest.approx(exact, abs=0.005)
