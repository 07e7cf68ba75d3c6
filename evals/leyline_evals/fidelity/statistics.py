"""Means over edits whose trajectories are the independent units (clusters).

A trajectory's edits are drawn together: the interval is a bootstrap over trajectories, the test
flips the sign of a trajectory's differences as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "Interval", "difference", "holm", "interval"]

DRAWS = 10_000
_EXACT = 14  # clusters of which all sign patterns are tried
_BLOCK = 500

Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference of means, left - right.

    Attributes:
        mean, low, high: of the difference.
        p: two-sided, that the sign of a trajectory's difference is a coin's.
        smaller: edits whose left value is the smaller one, a tie counting half.
    """

    mean: float
    low: float
    high: float
    p: float
    smaller: float


def interval(values: Sequence[float], clusters: Sequence[str], seed: int = 0) -> Interval:
    """The mean of some values, and how far it would vary over other trajectories.

    Raises:
        ValueError: there are no values.
    """
    sums, sizes = _by_cluster(values, clusters)
    means = _resampled(sums, sizes, seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(sums.sum() / sizes.sum()), float(low), float(high))


def difference(
    left: Sequence[float], right: Sequence[float], clusters: Sequence[str], seed: int = 0
) -> Difference:
    """How much smaller or larger `left` is, edit by edit."""
    apart = np.asarray(left, np.float64) - np.asarray(right, np.float64)
    mean, low, high = interval(apart.tolist(), clusters, seed)
    sums, _ = _by_cluster(apart.tolist(), clusters)
    smaller = float((apart < 0).mean() + (apart == 0).mean() / 2)
    return Difference(mean, low, high, _flipped(sums, seed), smaller)


def holm(ps: Sequence[float]) -> list[float]:
    """P values adjusted for there being several (Holm), in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, ps[index] * (len(ps) - rank)))
        adjusted[index] = highest
    return adjusted


def _by_cluster(values: Sequence[float], clusters: Sequence[str]) -> tuple[Floats, Floats]:
    """Each trajectory's sum and number of values."""
    if not values:
        raise ValueError("a mean of no values")
    _, which = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(which, weights=np.asarray(values, np.float64))
    return sums.astype(np.float64), np.bincount(which).astype(np.float64)


def _resampled(sums: Floats, sizes: Floats, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, DRAWS, _BLOCK):
        drawn = rng.integers(len(sums), size=(min(_BLOCK, DRAWS - start), len(sums)))
        found.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(found)


def _flipped(sums: Floats, seed: int) -> float:
    """How often flipped signs give a sum as far from 0."""
    here = abs(sums.sum()) * (1 - 1e-9)
    count = len(sums)
    if count <= _EXACT:
        signs = 1 - 2 * (np.arange(1 << count)[:, None] >> np.arange(count) & 1)
        return float((np.abs(signs @ sums) >= here).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, DRAWS, _BLOCK):
        size = min(_BLOCK, DRAWS - start)
        signs = rng.integers(2, size=(size, count)) * 2 - 1
        hits += int((np.abs(signs @ sums) >= here).sum())
    return (hits + 1) / (DRAWS + 1)
