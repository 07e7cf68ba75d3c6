"""Rates and paired comparisons. Episodes of one task are alike: tasks are the units.

scipy has the distributions; what it lacks is here: the permutation of arms within tasks, exact for
any number of tasks, and Holm's correction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Interval",
    "Paired",
    "bootstrap",
    "holm",
    "majorities",
    "mcnemar",
    "paired",
    "permutation",
    "wilson",
]

RESAMPLES = 10_000
AT_ONCE = 4_000_000
"""Tasks drawn at once: it bounds the memory."""

Pairs = Mapping[str, Sequence[tuple[bool, bool]]]
"""By task, each seed's pair: solved in the first arm, solved in the second."""


class Interval(NamedTuple):
    """From `low` to `high`, both included."""

    low: float
    high: float


def wilson(solved: int, of: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a rate; [0, 1] of nothing.

    It takes episodes for independent; where seeds of a task are alike it is too narrow.
    """
    if not of:
        return Interval(0.0, 1.0)
    from scipy.stats import binomtest

    found = binomtest(solved, of).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def permutation(differences: Sequence[int]) -> float:
    """The exact two-sided p-value of a sum, were the sign of every difference a coin's throw.

    A difference is a task's: solved seeds of the second arm less those of the first. All 2^tasks
    assignments are counted, by adding the differences up one after the other.
    """
    sizes = [abs(one) for one in differences if one]
    reach, total = sum(sizes), abs(sum(differences))
    chance: NDArray[np.float64] = np.zeros(2 * reach + 1)  # chance[reach + s]: of the sum s
    chance[reach] = 1.0
    for size in sizes:
        moved = np.zeros_like(chance)
        moved[size:] += chance[:-size]
        moved[:-size] += chance[size:]
        chance = moved / 2
    sums = np.abs(np.arange(-reach, reach + 1))
    return min(1.0, float(chance[sums >= total].sum()))


def majorities(pairs: Pairs) -> tuple[int, int]:
    """Tasks that only the second arm, and that only the first, solved in most of its seeds."""
    gained = lost = 0
    for each in pairs.values():
        first = 2 * sum(a for a, _ in each) > len(each)
        second = 2 * sum(b for _, b in each) > len(each)
        gained += second and not first
        lost += first and not second
    return gained, lost


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p-value of McNemar's test."""
    if not gained + lost:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(min(gained, lost), gained + lost).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order, by Holm's method."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = highest
    return corrected


def bootstrap(pairs: Pairs, confidence: float = 0.95, seed: int = 0) -> Interval:
    """The interval of the difference of rates, by drawing tasks again with all their seeds.

    With few tasks it is too narrow: nothing outside the tasks that were run is known to it.
    """
    tasks = [each for each in pairs.values() if each]
    if not tasks:
        return Interval(-1.0, 1.0)
    sums = np.array([sum(b - a for a, b in each) for each in tasks], dtype=np.float64)
    sizes = np.array([len(each) for each in tasks], dtype=np.float64)
    draw = np.random.default_rng(seed)
    found = np.empty(RESAMPLES)
    step = max(1, AT_ONCE // len(tasks))
    for start in range(0, RESAMPLES, step):
        drawn = draw.integers(len(tasks), size=(min(step, RESAMPLES - start), len(tasks)))
        found[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(float(low), float(high))


@dataclass(frozen=True)
class Paired:
    """Two arms compared over what both of them finished.

    Attributes:
        tasks, pairs: how many.
        first, second: solved episodes of each.
        difference: of the rates, second - first.
        interval: of the difference.
        p: of the exact permutation within tasks.
        gained, lost: tasks by majority of their seeds.
        mcnemar: its p-value over these.
    """

    tasks: int
    pairs: int
    first: int
    second: int
    difference: float
    interval: Interval
    p: float
    gained: int
    lost: int
    mcnemar: float


def paired(pairs: Pairs, confidence: float = 0.95) -> Paired:
    """The comparison of two arms; of no pairs, one that says nothing."""
    each = [pair for found in pairs.values() for pair in found]
    first, second = sum(a for a, _ in each), sum(b for _, b in each)
    gained, lost = majorities(pairs)
    return Paired(
        tasks=sum(bool(found) for found in pairs.values()),
        pairs=len(each),
        first=first,
        second=second,
        difference=(second - first) / len(each) if each else math.nan,
        interval=bootstrap(pairs, confidence),
        p=permutation([sum(b - a for a, b in found) for found in pairs.values()]),
        gained=gained,
        lost=lost,
        mcnemar=mcnemar(gained, lost),
    )
