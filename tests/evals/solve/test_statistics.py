"""Rates and paired comparisons, held against brute force, scipy and statsmodels.

Libraries are imported in the tests: no deadline holds for an import.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_evals.solve.statistics import (
    bootstrap,
    holm,
    majorities,
    mcnemar,
    paired,
    permutation,
    wilson,
)

pairs = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=2),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_that_of_statsmodels(counts: tuple[int, int]) -> None:
    from statsmodels.stats.proportion import proportion_confint

    solved, of = counts
    if not of:
        assert wilson(0, 0) == (0, 1)
        return
    assert wilson(solved, of) == pytest.approx(
        proportion_confint(solved, of, method="wilson"), abs=1e-9
    )


def by_hand(differences: list[int]) -> float:
    """Every assignment of signs, one by one."""
    total = abs(sum(differences))
    signs = itertools.product((-1, 1), repeat=len(differences))
    sums = [abs(sum(s * d for s, d in zip(sign, differences, strict=True))) for sign in signs]
    return sum(found >= total for found in sums) / len(sums)


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), max_size=9))
def test_the_permutation_is_every_assignment_of_signs(differences: list[int]) -> None:
    assert permutation(differences) == pytest.approx(by_hand(differences), abs=1e-12)


def test_the_permutation_is_that_of_scipy() -> None:
    from scipy.stats import permutation_test

    differences = np.array([3, -1, 2, 0, 4, 1, -2, 2])
    zeros = np.zeros_like(differences)
    expected = permutation_test(
        (differences, zeros),
        lambda a, b: np.sum(a - b),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert permutation(differences.tolist()) == pytest.approx(expected.pvalue)


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), max_size=40))
def test_it_does_not_matter_which_arm_is_first(differences: list[int]) -> None:
    assert permutation(differences) == permutation([-one for one in differences])


def test_one_seed_a_task_is_mcnemar() -> None:
    """With single episodes the permutation of arms is McNemar's exact test."""
    assert permutation([1] * 9 + [-1] * 2) == pytest.approx(mcnemar(9, 2))


def test_five_tasks_are_never_significant() -> None:
    assert permutation([8] * 5) == pytest.approx(2 / 32)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_that_of_statsmodels(gained: int, lost: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    if not gained + lost:
        assert mcnemar(0, 0) == 1
        return
    assert mcnemar(gained, lost) == pytest.approx(
        theirs([[5, gained], [lost, 7]], exact=True).pvalue
    )


@pytest.mark.parametrize(
    "p_values", [[0.04], [0.01, 0.04, 0.03, 0.005], [0.2, 0.2, 0.9], [0.0, 1.0, 0.02, 0.02, 0.5]]
)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    _, expected, _, _ = multipletests(p_values, method="holm")
    assert holm(p_values) == pytest.approx(list(expected))


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_step_by_step(p_values: list[float], alpha: float) -> None:
    """The smallest first, each at the level divided by those left, up to the first miss."""
    rejected = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[place] * (len(p_values) - rank) > alpha:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(p_values)) if p <= alpha} == rejected


def test_holm_of_nothing() -> None:
    assert holm([]) == []


def test_a_tie_of_seeds_is_no_majority() -> None:
    tie, all_of_them = [(True, False), (False, False)], [(False, True), (False, True)]
    assert majorities({"tie": tie, "gained": all_of_them}) == (1, 0)
    assert majorities({"lost": [(True, False)] * 3}) == (0, 1)


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_the_interval_holds_the_difference_and_turns_with_the_arms(
    found: dict[str, list[tuple[bool, bool]]],
) -> None:
    compared = paired(found)
    assert compared.interval.low - 1e-9 <= compared.difference <= compared.interval.high + 1e-9
    turned = paired({task: [(b, a) for a, b in each] for task, each in found.items()})
    assert turned.difference == pytest.approx(-compared.difference)
    assert turned.p == pytest.approx(compared.p)
    assert (turned.gained, turned.lost) == (compared.lost, compared.gained)
    assert turned.interval.low == pytest.approx(-compared.interval.high, abs=0.05)


def test_the_bootstrap_draws_tasks_not_episodes() -> None:
    """Ten tasks, all seeds alike: with single episodes the interval would be half as wide."""
    clustered = {str(n): [(n < 3, n < 8)] * 4 for n in range(10)}
    low, high = bootstrap(clustered)
    draw = np.random.default_rng(1)
    sums = np.array([float(n < 8) - float(n < 3) for n in range(10)])
    expected = np.quantile(draw.choice(sums, (20_000, 10)).mean(axis=1), [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(expected), abs=0.11)
    assert high - low > 0.5


def test_tasks_of_unequal_sizes_weigh_by_their_episodes() -> None:
    found = paired({"many": [(False, True)] * 3, "one": [(True, False)]})
    assert found.difference == pytest.approx((3 - 1) / 4)
    assert (found.tasks, found.pairs, found.first, found.second) == (2, 4, 1, 3)


def test_a_comparison_of_nothing_says_nothing() -> None:
    found = paired({})
    assert math.isnan(found.difference)
    assert found.interval == (-1, 1)
    assert found.p == found.mcnemar == 1
