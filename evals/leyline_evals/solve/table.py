"""A report on the terminal: what was solved, what it cost, and what can be said of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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
    names = [one.first.removeprefix(f"{found.a}: ") for one in found.arms]
    labels = _labels(names)
    parts: list[RenderableType] = [
        Text(f"{found.b} against {found.a}, over {found.tasks} tasks of both", style="bold"),
        *_numbered(names),
        Text(),
        _compared("arm", dict(zip(labels.values(), found.arms, strict=True))),
        _legend(words.COMPARED),
    ]
    parts += [Text(f"note: {printable(note)}", style="yellow") for note in found.notes]
    console.print(Group(*parts), highlight=False)


def _run(run: RunReport) -> Iterator[RenderableType]:
    names = [arm.arm for arm in run.arms]
    labels = _labels(names)
    yield Text(words.setting(run), style="bold")
    yield from _numbered(names)
    for table in (_rates, _costs, _each):
        yield Text()
        yield table(run.arms, labels)
    if declaring := [arm for arm in run.arms if arm.declares]:
        yield Text()
        yield _edits(declaring, labels)
    yield _legend(words.COLUMNS)
    for sentence in words.found(run):
        yield Text(printable(sentence))
        yield Text()
    compared = ([run.primary] if run.primary else []) + run.secondary
    if compared:
        numbers = {name: labels[name].partition(" ")[0] for name in names}
        pairs = {f"{numbers[one.second]} - {numbers[one.first]}": one for one in compared}
        yield _compared("arms", pairs)
        yield _legend(words.COMPARED)
    for note in run.notes:
        yield Text(f"note: {printable(note)}", style="yellow")
    for problem in run.problems:
        yield Text(f"PROBLEM: {printable(problem)}", style="bold red")


def _labels(names: Sequence[str]) -> dict[str, str]:
    """What stands for each arm in tables, which have no room for policies: "2 repair"."""
    return {
        name: f"{number} {printable(name.rpartition('@')[2])}"
        for number, name in enumerate(names, start=1)
    }


def _numbered(names: Sequence[str]) -> Iterator[Text]:
    """The arms by number and whole name."""
    for number, name in enumerate(names, start=1):
        yield Text(f"  {number} {printable(name)}")


def _rates(arms: Sequence[ArmReport], labels: Mapping[str, str]) -> Table:
    table = _table("arm", "solved", "rate", "95 %", "steps", "recalls", "rereads", "errors")
    for arm in arms:
        table.add_row(
            labels[arm.arm],
            f"{arm.solved} of {arm.episodes}",
            words.percent(arm.rate) or "-",
            words.interval(arm),
            f"{arm.steps:,}",
            f"{arm.recalls:,}",
            f"{arm.rereads:,}",
            f"{sum(n for ended, n in arm.ended.items() if ended.value == 'error')}",
        )
    return table


def _costs(arms: Sequence[ArmReport], labels: Mapping[str, str]) -> Table:
    table = _table("arm", "prefilled", "compute", "spliced", "first token", "p99")
    for arm in arms:
        table.add_row(
            labels[arm.arm],
            f"{arm.prefilled_tokens:,}",
            f"{arm.compute_tokens:,}",
            f"{arm.spliced_tokens:,}",
            words.milliseconds(arm.ttft_p50),
            words.milliseconds(arm.ttft_p99),
        )
    return table


def _each(arms: Sequence[ArmReport], labels: Mapping[str, str]) -> Table:
    table = _table("arm", "prefilled / solved", "compute /", "wall /", "cost /")
    for arm in arms:
        table.add_row(
            labels[arm.arm],
            words.count(arm.prefilled_per_solved),
            words.count(arm.compute_per_solved),
            words.seconds(arm.wall_per_solved),
            words.dollars(arm.cost_per_solved),
        )
    return table


def _edits(arms: Sequence[ArmReport], labels: Mapping[str, str]) -> Table:
    table = _table("arm", "edits")
    table.add_column("carried out")
    for arm in arms:
        table.add_row(labels[arm.arm], f"{arm.edits:,}", words.carried(arm))
    return table


def _compared(title: str, compared: Mapping[str, Comparison]) -> Table:
    table = _table(title, "pairs", "tasks", "difference", "95 %", "p", "Holm", "McNemar")
    for label, one in compared.items():
        table.add_row(
            label,
            f"{one.pairs}",
            f"{one.tasks}",
            words.points(one.difference) or "-",
            f"{words.points(one.low)} to {words.points(one.high)}" if one.pairs else "-",
            f"{one.p:.3f}" if one.pairs else "-",
            "" if one.p_holm is None else f"{one.p_holm:.3f}" if one.pairs else "-",
            f"{one.mcnemar:.3f} (+{one.gained} -{one.lost})" if one.pairs else "-",
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
