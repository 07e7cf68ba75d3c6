"""How far a sitting is, on standard error. It shows no arm's rate: who sees one may stop by it."""

from __future__ import annotations

import rich.progress

from leyline_evals.progress import OneBar
from leyline_evals.solve.config import Cell
from leyline_evals.solve.driver import StepRecord
from leyline_evals.solve.rows import EpisodeRow

__all__ = ["Bar"]


class Bar(OneBar):
    """A progress bar over a run's episodes.

    Args:
        total: episodes of the run.
        done: those that earlier sittings finished.
    """

    def __init__(self, total: int, done: int) -> None:
        super().__init__(
            rich.progress.TextColumn("{task.completed:.0f} of {task.total:.0f} episodes"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("left"),
            rich.progress.TimeRemainingColumn(),
            total=total,
            completed=done,
        )
        self._running: dict[Cell, int] = {}
        self._errors = 0

    def begun(self, cell: Cell) -> None:
        """An episode begins."""
        self._running[cell] = 0
        self._show()

    def step(self, cell: Cell, record: StepRecord) -> None:
        """One of its replies was carried out."""
        self._running[cell] = record.number
        self._show()

    def ended(self, cell: Cell, row: EpisodeRow | None) -> None:
        """It is over."""
        self._running.pop(cell, None)
        if row is not None:
            self._errors += not row.counts
            self.show(advance=1)
        self._show()

    def _show(self) -> None:
        under_way = [f"{cell.task[-24:]} step {steps}" for cell, steps in self._running.items()]
        errors = [f"{self._errors} errors"] if self._errors else []
        self.say(", ".join([*errors, *under_way[:3]]))
