"""Intervals and tests whose units are trajectories."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_evals.fidelity.statistics import difference, holm, interval


def test_an_interval_covers_the_mean_it_was_drawn_from() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(60):
        shared = rng.normal(size=20)
        values = np.repeat(shared, 3) + rng.normal(size=60) * 0.3
        found = interval((values + 5).tolist(), [str(i // 3) for i in range(60)], seed)
        covered += found.low <= 5 <= found.high
    assert covered >= 50


def test_edits_of_one_trajectory_tell_less_than_edits_of_many() -> None:
    values = [float(i // 10) for i in range(100)]
    together = interval(values, [str(i // 10) for i in range(100)])
    apart = interval(values, [str(i) for i in range(100)])
    assert together.mean == apart.mean == 4.5
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_all_sign_patterns_of_a_few_trajectories() -> None:
    found = difference([1.0] * 6, [2.0] * 6, list("abcdef"))
    assert found.mean == -1
    assert found.p == pytest.approx(2 / 64)
    assert found.smaller == 1.0


def test_no_difference_is_none() -> None:
    found = difference([1.0, 2.0], [1.0, 2.0], ["a", "b"])
    assert (found.mean, found.low, found.high, found.p, found.smaller) == (0, 0, 0, 1, 0.5)


def test_many_trajectories_are_sampled() -> None:
    rng = np.random.default_rng(0)
    left = rng.normal(size=40)
    names = [str(i) for i in range(40)]
    assert difference((left - 2).tolist(), left.tolist(), names).p < 0.001
    assert difference(left.tolist(), rng.permutation(left).tolist(), names).p > 0.05


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        interval([], [])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_only_raises(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= high <= 1 for p, high in zip(ps, adjusted, strict=True))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [adjusted[i] for i in order] == sorted(adjusted)


def test_holm_of_known_values() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
