"""Which tasks of a pilot can tell arms apart: those that are solved sometimes."""

from __future__ import annotations

from leyline_evals.solve.arms import find
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.folder import RunFolder

__all__ = ["picked", "rates_of"]


def picked(run: RunFolder, arm: str, low: float, high: float) -> list[str]:
    """Tasks whose finished episodes in an arm were solved at a rate in [low, high].

    Raises:
        EvalError: there is no such arm, or no such task.
        CorruptRun: the folder is damaged.
    """
    name = find(arm, run.config.arms).name
    solved: dict[str, list[bool]] = {task.id: [] for task in run.config.tasks}
    for row in run.rows().values():
        if row.arm == name and row.counts:
            solved[row.task].append(row.solved)
    rates = {task: sum(each) / len(each) for task, each in solved.items() if each}
    found = [task for task, rate in rates.items() if low <= rate <= high]
    if not found:
        told = ", ".join(f"{task} {rate:.0%}" for task, rate in list(rates.items())[:8])
        raise EvalError(
            f"{run.path}: {name} solves no task at a rate from {low:.0%} to {high:.0%} "
            f"({told or 'no episode is finished'}); try other tasks, or a wider --between"
        )
    return found


def rates_of(text: str) -> tuple[float, float]:
    """The two rates of "0.15,0.7".

    Raises:
        EvalError: they are none.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise EvalError(f"--between {text!r}: write two rates, such as 0.15,0.7")
    return low, high
