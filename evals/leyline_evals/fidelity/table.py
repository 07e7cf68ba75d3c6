"""A fidelity report on the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from leyline_agent.cli.text import printable
from leyline_evals.fidelity import words
from leyline_evals.fidelity.report import ArmFigures, Comparison, FidelityReport, ProbeFigures

__all__ = ["share", "show"]


def show(report: FidelityReport, console: Console) -> None:
    """Print a report."""
    console.print(Group(*_parts(report)), highlight=False)


def _parts(report: FidelityReport) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(words.setting(report), style="bold")]
    for order, own in report.arms.items():
        title = Text(f"{order.value}: {words.ORDERS[order]}", style="dim")
        parts += [Text(), title, _arms({**report.controls, **own}, report.clusters)]
    if report.comparisons:
        parts += [Text(), _comparisons(report.comparisons)]
    if report.probes:
        parts += [Text(), _probes(report.probes)]
    parts += [Text(), _legend(report)]
    for reason, count in report.skipped.items():
        parts.append(Text(f"skipped {count}: {printable(reason)}", style="yellow"))
    parts += [Text(), *(Text(line) for line in words.verdict(report))]
    return parts


def _arms(figures: Mapping[str, ArmFigures], clusters: int) -> Table:
    """Of one trajectory there is no interval: it is over trajectories."""
    table = _table("arm", "KL mean", "95 %", "median", "worst", "top-1", "call", "tokens")
    for name, one in figures.items():
        table.add_row(
            name,
            f"{one.kl_mean:.4f}",
            f"{one.kl_low:.4f}-{one.kl_high:.4f}" if clusters > 1 else "-",
            f"{one.kl_median:.4f}",
            f"{one.kl_worst:.4f}",
            f"{one.top1:.1%}",
            share(one.same_call),
            f"{one.recomputed:,.0f}",
        )
    return table


def _comparisons(found: list[Comparison]) -> Table:
    table = _table("mean KL (* primary)", "apart", "95 %", "p", "Holm", "nearer")
    for one in found:
        table.add_row(
            f"{one.left} - {one.right}{' *' if one.primary else ''}",
            f"{one.difference:+.4f}",
            f"{one.low:+.4f} to {one.high:+.4f}",
            f"{one.p:.4f}",
            "" if one.primary else f"{one.p_holm:.4f}",
            f"{one.nearer:.0%}",
        )
    return table


def _probes(found: Mapping[str, ProbeFigures]) -> Table:
    table = _table("probe", "copied", "old value", "prefers old", "secret", "worst")
    for name, one in found.items():
        table.add_row(
            name,
            share(one.copied),
            _nats(one.stale_nats),
            share(one.prefers_old),
            _nats(one.secret_nats),
            _nats(one.secret_worst),
        )
    return table


def _legend(report: FidelityReport) -> Table:
    grid = Table.grid(padding=(0, 2))
    first = next(iter(report.arms.values()), {})
    for name in (*report.controls, *first):
        said = words.ARMS.get(name) or report.config.arms.get(name, "")
        grid.add_row(Text(name, style="dim bold"), Text(said, style="dim"))
    return grid


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table


def share(value: float | None) -> str:
    """A share in percent; "" where it is not known."""
    return "" if value is None else f"{value:.0%}"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
