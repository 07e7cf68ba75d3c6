"""A report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from leyline_evals.solve import charts, words
from leyline_evals.solve.report import EvalReport

__all__ = ["page"]


def page(report: EvalReport, title: str = "Leyline solve rates") -> str:
    """The page. Every text of a run is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        carried=words.carried,
        count=words.count,
        dollars=words.dollars,
        interval=words.interval,
        ms=words.milliseconds,
        percent=words.percent,
        points=words.points,
        seconds=words.seconds,
    )
    template = environment.from_string(
        files("leyline_evals.solve").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    drawn = [
        {
            "run": run,
            "setting": words.setting(run),
            "found": list(words.found(run)),
            "rates": Markup(charts.rates(run)),
            "differences": Markup(charts.differences(run)),
            "tokens": Markup(charts.tokens(run)),
            "first_token": Markup(charts.first_token(run)),
            "tasks": Markup(charts.tasks(run)),
        }
        for run in report.runs
    ]
    return template.render(
        title=title, report=report, runs=drawn, columns=words.COLUMNS, compared=words.COMPARED
    )
