"""A load on the terminal: a row an arm and concurrency."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from leyline_evals.load.report import LoadReport, Point
from leyline_evals.replay import words

__all__ = ["LEGEND", "show"]

LEGEND = (
    "at: calls under way at most; compute: prefilled and recomputed; "
    "hit rate: prompt tokens reused, exact or spliced"
)
TIMED = (
    "; first token: median, as the client saw it, with the time in the queue; "
    "edited: that of turns with an edit"
)


def show(report: LoadReport, console: Console) -> None:
    """Print a report."""
    config = report.config
    ran = "tokens counted, no model ran" if config.tokens_only else config.engine
    console.print(
        f"{config.workload}; {report.conversations} conversations; policy {config.policy}; {ran}",
        highlight=False,
        markup=False,
        style="bold",
    )
    console.print(_table(report.points, timed=not config.tokens_only), highlight=False)
    console.print(LEGEND + ("" if config.tokens_only else TIMED), style="dim", highlight=False)
    for one in report.skipped:
        console.print(f"skipped: {one.reason}", style="yellow", highlight=False, markup=False)
    for problem in report.problems:
        console.print(f"PROBLEM: {problem}", style="bold red", highlight=False, markup=False)


def _table(points: list[Point], *, timed: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    times = ["first token", "p99", "edited", "calls/s"] if timed else []
    for number, title in enumerate(
        ["arm", "at", "prompt", "compute", "spliced", "hit rate", *times]
    ):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    for point in points:
        table.add_row(*_tokens(point), *(_times(point) if timed else ()))
    return table


def _tokens(point: Point) -> list[str]:
    one = point.figures
    counts = (one.prompt_tokens, one.compute_tokens, one.spliced_tokens)
    shown = [words.count(tokens) for tokens in counts]
    return [point.arm.value, str(point.concurrency), *shown, f"{one.hit_rate:.1%}"]


def _times(point: Point) -> list[str]:
    whole, edited = point.figures.ttft_ms, point.figures.ttft_after_edit_ms
    shown = (whole.p50, whole.p99) if whole else (None, None)
    times = [*shown, edited.p50 if edited else None]
    return [
        *("" if time is None else words.milliseconds(time) for time in times),
        f"{point.calls_per_second:.2f}",
    ]
