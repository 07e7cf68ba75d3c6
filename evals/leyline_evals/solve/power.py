"""What a plan can see: the smallest difference that its test finds, told before anything runs.

Runs are simulated: each task has a chance of its own to be solved, drawn around the expected rate;
how far tasks differ is their `icc`, the correlation of two episodes of one task. The second arm's
chances are raised, or lowered, by the difference in question on average: each task's by a part of
what there is room for, drawn between none and all of it, for no policy does the same to every task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from leyline_evals.solve.config import Registration

__all__ = ["detectable", "power_of", "told"]

RUNS = 1000
STEPS = 9
EXACT_CELLS = 20_000_000
"""Above so many entries the statistic's distribution is taken for normal: it nearly is, then."""


def told(asked: Registration, tasks: int, seeds: int) -> Registration:
    """A registration with the differences that so many tasks and seeds can see."""

    def least(fall: bool) -> float | None:
        found = detectable(
            tasks,
            seeds,
            rate=asked.rate,
            icc=asked.icc,
            alpha=asked.alpha,
            power=asked.power,
            fall=fall,
        )
        return None if found is None else round(found, 3)

    found = {"rise": least(fall=False), "fall": least(fall=True)}
    known = [each for each in found.values() if each is not None]
    return asked.model_copy(update={**found, "detectable": min(known, default=None)})


def detectable(
    tasks: int,
    seeds: int,
    *,
    rate: float = 0.5,
    icc: float = 0.3,
    alpha: float = 0.05,
    power: float = 0.8,
    fall: bool = False,
) -> float | None:
    """The smallest rise of a rate that is found with a chance of `power`, to about a point.

    Args:
        tasks: how many.
        seeds: episodes a task and arm.
        rate: the solve rate expected.
        icc: how alike episodes of one task are expected to be.
        alpha: the level of the test.
        power: the chance.
        fall: the smallest fall instead.

    Returns:
        The difference, more than 0; None where not even the largest there can be is found.
    """
    sign = -1 if fall else 1
    low, high = 0.0, rate if fall else 1 - rate
    if _power(tasks, seeds, rate, icc, sign * high, alpha) < power:
        return None
    for _ in range(STEPS):
        middle = (low + high) / 2
        if _power(tasks, seeds, rate, icc, sign * middle, alpha) < power:
            low = middle
        else:
            high = middle
    return high


def power_of(
    tasks: int, seeds: int, difference: float, *, rate: float, icc: float, alpha: float = 0.05
) -> float:
    """The chance to find a difference."""
    return _power(tasks, seeds, rate, icc, difference, alpha)


def _power(
    tasks: int, seeds: int, rate: float, icc: float, difference: float, alpha: float
) -> float:
    draw = np.random.default_rng(0)  # The same draws for every difference: power then rises.
    shape = (RUNS, tasks)
    if icc > 0:
        spread = 1 / icc - 1
        chances = draw.beta(rate * spread, (1 - rate) * spread, size=shape)
    else:
        chances = np.full(shape, rate)
    uniform = draw.random((2, seeds, *shape))
    room = 1 - rate if difference >= 0 else rate
    mean = max(abs(difference) / room, 1e-9)
    part = draw.random(shape) ** ((1 - mean) / mean)  # `mean` on average, from 0 to 1
    others = chances + part * ((1 - chances) if difference >= 0 else -chances)
    first = (uniform[0] < chances).sum(axis=0)
    second = (uniform[1] < others).sum(axis=0)
    p_values = _p_values((second - first).astype(np.int64), seeds)
    return float((p_values < alpha).mean())


def _p_values(differences: NDArray[np.int64], seeds: int) -> NDArray[np.float64]:
    """`statistics.permutation` of every row of [runs, tasks]."""
    runs, tasks = differences.shape
    reach = int(np.abs(differences).sum(axis=1).max())
    if runs * (2 * reach + 1) * tasks > EXACT_CELLS:
        return _nearly(differences)
    width = 2 * reach + 1
    chance = np.zeros((runs, width))
    chance[:, reach] = 1.0
    for task in range(tasks):
        sizes = np.abs(differences[:, task])
        moved = np.zeros_like(chance)
        for size in range(seeds + 1):
            rows = np.flatnonzero(sizes == size)
            if not size:
                moved[rows] = chance[rows]
                continue
            moved[rows, size:] += chance[rows, :-size] / 2
            moved[rows, :-size] += chance[rows, size:] / 2
        chance = moved
    sums = np.abs(np.arange(-reach, reach + 1))
    totals = np.abs(differences.sum(axis=1))
    tails: NDArray[np.float64] = np.where(sums >= totals[:, None], chance, 0.0).sum(axis=1)
    return tails


def _nearly(differences: NDArray[np.int64]) -> NDArray[np.float64]:
    from scipy.stats import norm

    size = np.sqrt((differences**2).sum(axis=1))
    total = np.abs(differences.sum(axis=1)) - 1.0  # sums lie two apart: half of that
    found = 2 * norm.sf(np.maximum(total, 0) / np.maximum(size, 1e-9))
    return np.minimum(1.0, np.asarray(found, dtype=np.float64))
