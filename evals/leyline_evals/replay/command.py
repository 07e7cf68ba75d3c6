"""What `leyline replay` does, once its arguments are known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import rich.progress
from rich.console import Console

from leyline_evals.progress import OneBar
from leyline_evals.replay import compare as comparison
from leyline_evals.replay import html, table
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.outputs import STDOUT
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import Played
from leyline_evals.replay.workload import Run

__all__ = ["Bar", "cores", "finish", "write"]


class Bar(OneBar):
    """A progress bar on standard error.

    Args:
        total: runs, where known.
    """

    def __init__(self, total: int | None = None) -> None:
        super().__init__(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[runs]}"),
            rich.progress.TimeElapsedColumn(),
            description="loading",
            total=None,
            runs="",
        )
        self._total = total

    def part(self, what: str, done: int, of: int) -> None:
        """Parts of something done."""
        self.show(description=what, completed=done, total=of)

    def turn(self, run: Run, done: int, of: int) -> None:
        """Turns of a run done."""
        self.part(run.id[-40:], done, of)

    def run(self, run: Run, number: int) -> None:
        """A run is through."""
        of = "" if self._total is None else f" of {self._total}"
        self.show(description=run.id[-40:], runs=f"{number}{of} runs")


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compare(
    policies: Sequence[str],
    files: Sequence[Path],
    limit: int | None,
    config: Config,
    json: Path | None,
    jobs: int | None,
) -> bool:
    """Print a Markdown table of several policies, row by row; whether there was no problem."""
    console = Console(stderr=json == STDOUT, highlight=False, markup=False, soft_wrap=True)
    fine, found = True, None
    texts = comparison.expanded(policies)
    with Bar(limit) as bar:
        rows = comparison.compare(texts, files, limit, config, jobs=jobs or cores(), progress=bar)
        for row, found in rows:
            if len(found.rows) == 1:
                console.print(_about(found), comparison.heading(), sep="\n\n")
            console.print(comparison.line(row))
            for problem in row.problems:
                fine = False
                console.print(f"PROBLEM: {row.policy}: {problem}")
    if found is None:
        return fine
    figures = found.model_dump_json(indent=2)
    if json == STDOUT:
        print(figures, flush=True)
    elif json is not None:
        write(json, figures + "\n")
        console.print(f"\nfigures: {json}")
    return fine


def _about(found: comparison.Comparison) -> str:
    answered = f"; questions answered by {found.fulfil}" if found.fulfil else ""
    return (
        f"{found.runs} runs, {found.turns} turns of {', '.join(found.files)}; thousand tokens of "
        f"{found.model}: of all prompts, and computed for them{answered}"
    )


def finish(played: Played, json: Path | None, page: Path | None, title: str) -> None:
    """Write what was asked for and print the table; beside figures on stdout it goes to stderr."""
    figures = played.report.model_dump_json(indent=2)
    if json == STDOUT:
        print(figures, flush=True)
    elif json is not None:
        write(json, figures + "\n")
    if page is not None:
        write(page, html.page(played, title))
    console = Console(stderr=json == STDOUT)
    table.show(played.report, console)
    for what, path in (("figures", None if json == STDOUT else json), ("report", page)):
        if path is not None:
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True, markup=False)


def write(path: Path, text: str) -> None:
    """Write a file. Raises ReplayError when it cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReplayError(f"{path}: cannot be written: {error.strerror}") from error
