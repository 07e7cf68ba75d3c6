"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from leyline_evals.replay import charts, words
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.charts import Run
from leyline_evals.replay.report import RunSummary, Spread
from leyline_evals.replay.runner import Played

__all__ = ["page"]

RUNS_DRAWN = 4
RUNS_LISTED = 500


def page(played: Played, title: str = "Leyline replay") -> str:
    """The page. Every text of a recording is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(count="{:,}".format, ms=_ms, us=_us)
    template = environment.from_string(
        files("leyline_evals.replay").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    report = played.report
    return template.render(
        title=title,
        report=report,
        setting=words.setting(report),
        seen=words.seen(report),
        arms=words.ARMS,
        terms=words.TERMS,
        times=words.TIMES,
        controls=words.CONTROLS,
        timed=any(one.ttft_ms for one in report.arms.values()),
        compute=Markup(charts.compute(report.arms)),
        drawn=[_drawn(run) for run in played.results[:RUNS_DRAWN]],
        runs=[
            (summary, _ratios(run))
            for summary, run in zip(report.runs, played.results[:RUNS_LISTED], strict=False)
        ],
        done=_done,
    )


def _drawn(run: Run) -> dict[str, str | int]:
    """One run's plots."""
    first = next(iter(run.values()))
    return {
        "id": first.id,
        "format": first.format,
        "messages": first.messages,
        "turns": first.turns,
        "context": Markup(charts.context(run)),
        "timeline": Markup(charts.timeline(run)),
        "computed": Markup(charts.computed(run)),
        "first_token": Markup(charts.first_token(run)),
    }


def _ratios(run: Run) -> dict[Arm, str]:
    """One run's compute in each arm, against append-only, over the turns that all did."""
    base = run.get(Arm.APPEND_ONLY)
    common = min(len(played.rows) for played in run.values())
    spent = {arm: sum(row.compute for row in played.rows[:common]) for arm, played in run.items()}
    whole = spent[Arm.APPEND_ONLY] if base is not None else 0
    return {arm: f"{tokens / whole:.2f}" if whole else "" for arm, tokens in spent.items()}


def _done(summary: RunSummary) -> str:
    """How far the arms came."""
    done: Sequence[int] = sorted(set(summary.turns_done.values()))
    return f"{done[0]}" if len(done) == 1 else f"{done[0]} to {done[-1]}"


def _ms(time: Spread | None, which: str = "p50") -> str:
    return f"{getattr(time, which):,.0f} ms" if time else ""


def _us(time: Spread | None) -> str:
    return f"{time.p50 / 1e3:.2f} ms" if time else ""
