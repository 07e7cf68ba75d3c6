"""A run's rows made into its report."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from leyline_evals.solve import statistics
from leyline_evals.solve.arms import SolveArm
from leyline_evals.solve.backend import Price
from leyline_evals.solve.driver import Ended
from leyline_evals.solve.folder import RunFolder
from leyline_evals.solve.notes import notes, problems
from leyline_evals.solve.report import ArmReport, Comparison, RunReport, TaskReport
from leyline_evals.solve.rows import EpisodeRow, Key
from leyline_evals.solve.statistics import Paired

__all__ = ["comparison", "pairs_of", "run_report"]

Rows = Mapping[Key, EpisodeRow]

MILLION = 1e6
_SUMS = ("prompt", "exact", "spliced", "recomputed", "prefilled", "completion")


def run_report(folder: RunFolder) -> RunReport:
    """What a run has found so far.

    Raises:
        CorruptRun: its folder is damaged.
    """
    config, rows, sittings = folder.config, folder.rows(), folder.sittings()
    by_arm: dict[str, list[EpisodeRow]] = {arm.name: [] for arm in config.arms}
    for row in rows.values():
        by_arm[row.arm].append(row)
    price = config.model.price
    primary, secondary = _comparisons(folder, rows)
    errors = sum(not row.counts for row in rows.values())
    made = RunReport(
        run=folder.path.name,
        sha256=folder.file.sha256,
        created=folder.file.created,
        benchmark=config.driver.name,
        model=config.model.name,
        seeds=len(config.seeds),
        planned=config.size,
        finished=len(rows) - errors,
        errors=errors,
        due=len(rows) == config.size,
        retried=sum(row.counts and row.attempt > 1 for row in rows.values()),
        sittings=len(sittings),
        versions=sittings[-1].versions if sittings else {},
        registration=config.registration,
        arms=[_arm(arm, by_arm[arm.name], price) for arm in config.arms],
        primary=primary,
        secondary=secondary,
        tasks=_tasks(folder, rows.values()),
    )
    told = {"notes": notes(made, sittings), "problems": problems(made)}
    return made.model_copy(update=told)


def pairs_of(
    first: str, second: str, tasks: Iterable[str], rows: Rows, others: Rows | None = None
) -> dict[str, list[tuple[bool, bool]]]:
    """By task, the pairs of episodes of the same seed that both count.

    Args:
        first: an arm.
        second: another, or the same in another run.
        tasks: their ids.
        rows: of the first arm.
        others: of the second; the same where left out.
    """
    found: dict[str, list[tuple[bool, bool]]] = {task: [] for task in tasks}
    others = rows if others is None else others
    for (arm, task, seed), one in rows.items():
        other = others.get((second, task, seed))
        if arm == first and task in found and one.counts and other is not None and other.counts:
            found[task].append((one.solved, other.solved))
    return {task: each for task, each in found.items() if each}


def comparison(first: str, second: str, found: Paired) -> Comparison:
    """A paired comparison, as it is reported."""
    of = found.pairs
    return Comparison(
        first=first,
        second=second,
        tasks=found.tasks,
        pairs=of,
        first_rate=found.first / of if of else None,
        second_rate=found.second / of if of else None,
        difference=None if math.isnan(found.difference) else found.difference,
        low=found.interval.low,
        high=found.interval.high,
        p=found.p,
        gained=found.gained,
        lost=found.lost,
        mcnemar=found.mcnemar,
    )


def _comparisons(folder: RunFolder, rows: Rows) -> tuple[Comparison | None, list[Comparison]]:
    """The registered one, and all other pairs of arms."""
    config = folder.config
    registered = config.registration
    if registered is None:
        return None, []
    tasks = [task.id for task in config.tasks]

    def compared(first: str, second: str) -> Comparison:
        pairs = pairs_of(first, second, tasks, rows)
        return comparison(first, second, statistics.paired(pairs))

    main = {registered.first, registered.second}
    names = [arm.name for arm in config.arms]
    others = [pair for pair in itertools.combinations(names, 2) if set(pair) != main]
    secondary = [compared(*pair) for pair in others]
    corrected = statistics.holm([one.p for one in secondary])
    told = [
        one.model_copy(update={"p_holm": p}) for one, p in zip(secondary, corrected, strict=True)
    ]
    return compared(registered.first, registered.second), told


def _arm(arm: SolveArm, rows: Sequence[EpisodeRow], price: Price | None) -> ArmReport:
    counted = [row for row in rows if row.counts]
    solved = sum(row.solved for row in counted)
    interval = statistics.wilson(solved, len(counted))
    sums = {name: sum(getattr(row, name) for row in counted) for name in _SUMS}
    wall = sum(row.wall_seconds for row in counted)
    cost = _cost(counted, price)
    compute = sums["recomputed"] + sums["prefilled"]
    actions = _counted(row.actions for row in counted)
    return ArmReport(
        arm=arm.name,
        policy=arm.policy,
        mechanism=arm.mechanism,
        episodes=len(counted),
        solved=solved,
        rate=solved / len(counted) if counted else None,
        low=interval.low,
        high=interval.high,
        ended={ended: n for ended in Ended if (n := sum(row.ended is ended for row in rows))},
        steps=sum(row.steps for row in counted),
        **{f"{name}_tokens": total for name, total in sums.items()},
        compute_tokens=compute,
        prefilled_per_solved=_each(sums["prefilled"], solved),
        compute_per_solved=_each(compute, solved),
        wall_seconds=round(wall, 3),
        wall_per_solved=_each(wall, solved),
        cost=cost,
        cost_per_solved=None if cost is None else _each(cost, solved),
        **_first_tokens(counted),
        edits=sum(row.edits for row in counted),
        modes=_counted(row.modes for row in counted),
        reasons=_counted(row.reasons for row in counted),
        recalls=sum(row.recalls for row in counted),
        rereads=sum(row.rereads for row in counted),
        malformed=actions.get("malformed", 0),
        skipped=sum(row.skipped for row in counted),
        failed=_counted(row.failed for row in counted),
        overhead=_overhead(counted, wall),
    )


def _each(total: float, solved: int) -> float | None:
    return total / solved if solved else None


def _counted(many: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in many:
        found.update(one)
    return dict(sorted(found.items()))


def _cost(rows: Sequence[EpisodeRow], price: Price | None) -> float | None:
    """Dollars: by the run's own prices, else as the provider's are known."""
    if price is not None:
        cached = sum(row.exact + row.spliced for row in rows) * price.cached
        computed = sum(row.recomputed + row.prefilled for row in rows) * price.prompt
        return (cached + computed + sum(row.completion for row in rows) * price.reply) / MILLION
    known = [row.cost for row in rows if row.cost is not None]
    return sum(known) if known and len(known) == len(rows) else None


def _first_tokens(rows: Sequence[EpisodeRow]) -> dict[str, float | int | None]:
    times = np.array(list(itertools.chain.from_iterable(row.ttft_ms for row in rows)))
    if not len(times):
        return {"ttft_p50": None, "ttft_p99": None, "ttft_turns": 0}
    middle, last = np.percentile(times, [50, 99])
    return {"ttft_p50": float(middle), "ttft_p99": float(last), "ttft_turns": len(times)}


def _overhead(rows: Sequence[EpisodeRow], wall: float) -> float | None:
    """The part of the time that is neither the model's nor a tool's."""
    known = sum(row.model_seconds + row.tool_seconds for row in rows)
    return max(0.0, 1 - known / wall) if wall else None


def _tasks(folder: RunFolder, rows: Iterable[EpisodeRow]) -> list[TaskReport]:
    made = {
        task.id: TaskReport(task=task.id, group=task.group, solved={}, episodes={})
        for task in folder.config.tasks
    }
    for row in rows:
        if row.counts:
            one = made[row.task]
            one.episodes[row.arm] = one.episodes.get(row.arm, 0) + 1
            one.solved[row.arm] = one.solved.get(row.arm, 0) + row.solved
    return list(made.values())
