"""What `leyline fidelity` does, once its arguments are known."""

from __future__ import annotations

from pathlib import Path

import rich.progress
from rich.console import Console

from leyline_agent.serving.models.embedded import resolve
from leyline_agent.serving.models.load import load_model
from leyline_evals.fidelity import html, table
from leyline_evals.fidelity.records import EditRow
from leyline_evals.fidelity.registered import Registered
from leyline_evals.fidelity.runner import Measured, measure
from leyline_evals.progress import OneBar
from leyline_evals.replay.command import write
from leyline_evals.replay.memory import settled_memory
from leyline_evals.replay.outputs import STDOUT

__all__ = ["finish", "run"]


def run(
    asked: Registered, dtype: str, seconds: float | None, keep: Path | None, *, resume: bool
) -> Measured:
    """Measure what was asked for, with a bar on standard error.

    Raises what `load_model` and `runner.measure` raise.
    """
    with _Bar(asked.limit) as bar, settled_memory():
        model = load_model(resolve(asked.config.model), dtype=dtype, name=asked.config.model)
        return measure(
            asked.files,
            asked.config,
            model,
            limit=asked.limit,
            seconds=seconds,
            keep=keep,
            resume=resume,
            pairs=asked.pairs,
            progress=bar,
        )


def finish(measured: Measured, json: Path | None, page: Path | None) -> None:
    """Write what was asked for and print the table; beside a report on stdout it goes to stderr."""
    report = measured.report.model_dump_json(indent=2)
    if json == STDOUT:
        print(report, flush=True)
    elif json is not None:
        write(json, report + "\n")
    if page is not None:
        write(page, html.page(measured))
    console = Console(stderr=json == STDOUT)
    table.show(measured.report, console)
    for what, path in (("report", None if json == STDOUT else json), ("page", page)):
        if path is not None:
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True, markup=False)


class _Bar(OneBar):
    """A progress bar on standard error; where that is no terminal, a line an edit."""

    def __init__(self, total: int) -> None:
        super().__init__(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            description="loading",
            total=total,
        )
        self._total = total

    def edit(self, row: EditRow, done: int) -> None:
        """An edit is measured."""
        self.show(description=row.key[-40:], completed=done)
        if not self.console.is_terminal:
            self.console.print(
                f"{done} of {self._total}: {row.key}, {row.seconds:.1f} s",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
