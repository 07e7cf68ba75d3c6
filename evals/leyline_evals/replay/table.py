"""A replay on the terminal: a table, what it means, and what to be wary of."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from leyline_agent.cli.text import printable
from leyline_evals.replay import words
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.report import ArmFigures, FidelityFigures, ReplayReport, Spread

__all__ = ["show"]

SKIPPED_SHOWN = 5
TOKENS = ("prompt", "exact", "spliced", "recomputed", "prefilled")


def show(report: ReplayReport, console: Console) -> None:
    """Print a report."""
    console.print(Group(*_parts(report)), highlight=False)


def _parts(report: ReplayReport) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(words.setting(report), style="bold"), Text()]
    parts += [_tokens(report.arms), Text(), _speed(report.arms)]
    parts.append(_legend({arm.value: words.ARMS[arm] for arm in report.arms}))
    parts.append(_legend(_terms(report.arms)))
    if report.fidelity:
        parts += [Text(), _fidelity(report.fidelity), _legend(words.CONTROLS)]
    for sentence in words.seen(report):
        parts += [Text(), Text(sentence)]
    parts.append(Text())
    parts += [Text(f"note: {note}", style="yellow") for note in report.notes]
    parts += _skipped(report)
    parts += [Text(f"PROBLEM: {problem}", style="bold red") for problem in report.problems]
    return parts


def _tokens(arms: Mapping[Arm, ArmFigures]) -> Table:
    table = _table("arm", *TOKENS, "compute", "×")
    for arm, one in arms.items():
        counts = [words.count(getattr(one, f"{kind}_tokens")) for kind in (*TOKENS, "compute")]
        table.add_row(arm.value, *counts, _ratio(one))
    return table


def _speed(arms: Mapping[Arm, ArmFigures]) -> Table:
    timed = any(one.ttft_ms for one in arms.values())
    times = ["first token", "p99", "after an edit"] if timed else []
    table = _table("arm", "hit rate", "edits", *times, "splice", *(["copy"] if timed else []))
    for arm, one in arms.items():
        shown = [f"{one.hit_rate:.1%}", f"{one.edits:,}", *(_times(one) if timed else ())]
        shown += [_us(one, one.splice_us), *([_us(one, one.copy_us)] if timed else [])]
        table.add_row(arm.value, *shown)
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table


def _ratio(one: ArmFigures) -> str:
    return "" if one.compute_ratio is None else f"{one.compute_ratio:.2f}"


def _times(one: ArmFigures) -> list[str]:
    """The median and p99 of all turns, and the median of those with an edit."""
    whole, edited = one.ttft_ms, one.ttft_after_edit_ms
    return [
        words.milliseconds(whole.p50) if whole else "",
        words.milliseconds(whole.p99) if whole else "",
        words.milliseconds(edited.p50) if edited else "",
    ]


def _us(one: ArmFigures, time: Spread | None) -> str:
    """A median; "" for an arm that spliced nothing."""
    return f"{time.p50 / 1e3:.1f} ms" if time and one.spliced_tokens else ""


def _terms(arms: Mapping[Arm, ArmFigures]) -> dict[str, str]:
    timed = any(one.ttft_ms for one in arms.values())
    return {term: said for term, said in words.TERMS.items() if timed or term not in words.TIMES}


def _legend(lines: Mapping[str, str]) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    for term, said in lines.items():
        table.add_row(Text(term, style="dim bold"), Text(said, style="dim"))
    return Padding(table, (1, 0, 0, 2))


def _fidelity(found: Mapping[str, FidelityFigures]) -> Table:
    table = _table("nearness to honest", "turns", "tokens", "KL p50", "mean", "max", "top-1")
    for name, one in found.items():
        kls = (one.kl.p50, one.kl_mean, one.kl_max)
        shown = [f"{kl:.5f}" for kl in kls]
        table.add_row(name, f"{one.turns:,}", f"{one.tokens:,}", *shown, f"{one.top1:.1%}")
    return table


def _skipped(report: ReplayReport) -> list[RenderableType]:
    if not report.skipped:
        return []
    lines = [Text(f"skipped {len(report.skipped)} records:", style="yellow")]
    lines += [
        Text(f"  {printable(one.reason)}", style="yellow") for one in report.skipped[:SKIPPED_SHOWN]
    ]
    if len(report.skipped) > SKIPPED_SHOWN:
        lines.append(Text("  ... all of them are in the JSON", style="yellow"))
    return list(lines)
