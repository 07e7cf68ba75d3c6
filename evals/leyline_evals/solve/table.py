"""A report on the terminal: what was solved, what it cost, and what can be said of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from leyline_agent.cli.text import printable
from leyline_evals.solve import words
from leyline_evals.solve.report import ArmReport, Comparison, EvalComparison, EvalReport, RunReport

__all__ = ["show", "show_comparison"]


def show(report: EvalReport, console: Console) -> None:
    """Print a report."""
    for number, run in enumerate(report.runs):
        parts = [Text()] * bool(number) + list(_run(run))
        console.print(Group(*parts), highlight=False)


def show_comparison(found: EvalComparison, console: Console) -> None:
    """Print two runs side by side."""
    parts: list[RenderableType] = [
        Text(f"{found.b} against {found.a}, over {found.tasks} tasks of both", style="bold"),
        Text(),
        _compared(found.arms),
        _legend(words.COMPARED),
    ]
    parts += [Text(f"note: {printable(note)}", style="yellow") for note in found.notes]
    console.print(Group(*parts), highlight=False)


def _run(run: RunReport) -> Iterator[RenderableType]:
    yield Text(words.setting(run), style="bold")
    yield Text()
    yield _rates(run.arms)
    yield Text()
    yield _costs(run.arms)
    yield _legend(words.COLUMNS)
    for sentence in words.found(run):
        yield Text(printable(sentence))
        yield Text()
    compared = ([run.primary] if run.primary else []) + run.secondary
    if compared:
        yield _compared(compared)
        yield _legend(words.COMPARED)
    for note in run.notes:
        yield Text(f"note: {printable(note)}", style="yellow")
    for problem in run.problems:
        yield Text(f"PROBLEM: {printable(problem)}", style="bold red")


def _rates(arms: Sequence[ArmReport]) -> Table:
    table = _table("arm", "solved", "rate", "95 %", "steps", "recalls", "rereads", "errors")
    for arm in arms:
        table.add_row(
            printable(arm.arm),
            f"{arm.solved} of {arm.episodes}",
            words.percent(arm.rate),
            f"{arm.low:.0%} to {arm.high:.0%}",
            f"{arm.steps:,}",
            f"{arm.recalls:,}",
            f"{arm.rereads:,}",
            f"{sum(n for ended, n in arm.ended.items() if ended.value == 'error')}",
        )
    return table


def _costs(arms: Sequence[ArmReport]) -> Table:
    titles = ("prefilled", "compute", "spliced", "first token", "p99")
    each = ("prefilled / solved", "compute /", "wall /", "cost /")
    table = _table("arm", *titles, *each)
    for arm in arms:
        table.add_row(
            printable(arm.arm),
            f"{arm.prefilled_tokens:,}",
            f"{arm.compute_tokens:,}",
            f"{arm.spliced_tokens:,}",
            words.milliseconds(arm.ttft_p50),
            words.milliseconds(arm.ttft_p99),
            words.count(arm.prefilled_per_solved),
            words.count(arm.compute_per_solved),
            words.seconds(arm.wall_per_solved),
            words.dollars(arm.cost_per_solved),
        )
    return table


def _compared(compared: Sequence[Comparison]) -> Table:
    table = _table("comparison", "pairs", "tasks", "difference", "95 %", "p", "Holm", "McNemar")
    for one in compared:
        table.add_row(
            printable(f"{one.second} - {one.first}"),
            f"{one.pairs}",
            f"{one.tasks}",
            words.points(one.difference),
            f"{words.points(one.low)} to {words.points(one.high)}",
            f"{one.p:.3f}",
            "" if one.p_holm is None else f"{one.p_holm:.3f}",
            f"{one.mcnemar:.3f} (+{one.gained} -{one.lost})",
        )
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=bool(number))
    return table


def _legend(lines: dict[str, str]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for term, said in lines.items():
        table.add_row(Text(term, style="dim bold"), Text(said, style="dim"))
    return Padding(table, (1, 0, 1, 2))
