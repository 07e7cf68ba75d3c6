"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from leyline_evals.fidelity import words
from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.records import EditRow
from leyline_evals.fidelity.report import ArmFigures
from leyline_evals.fidelity.runner import Measured
from leyline_evals.fidelity.table import share
from leyline_evals.fidelity.totals import main_rows
from leyline_evals.replay.svg import Svg

__all__ = ["page"]

WIDTH, LEFT, RIGHT, ROW = 940, 130, 900, 26


def page(measured: Measured) -> str:
    """The page. Every name is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(share=share)
    template = environment.from_string(
        files("leyline_evals.fidelity").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    report = measured.report
    rows = main_rows(measured.rows)
    first = next(iter(report.arms.values()), {})
    return template.render(
        report=report,
        setting=words.setting(report),
        verdict=words.verdict(report),
        orders=words.ORDERS,
        plots={order: Markup(spread(rows, order, own)) for order, own in report.arms.items()},
        meanings={
            name: words.ARMS.get(name) or report.config.arms.get(name, "")
            for name in (*report.controls, *first)
        },
    )


def spread(rows: Sequence[EditRow], order: Order, own: Mapping[str, ArmFigures]) -> str:
    """A row an arm, a dot an edit at its KL on a logarithmic axis, the mean as a bar."""
    kls = {name: [row.controls[name].kl for row in rows] for name in ("noise", "unedited")} | {
        name: [row.arms[order][name].kl for row in rows] for name in own
    }
    found = [max(kl, 1e-6) for values in kls.values() for kl in values]
    low = math.floor(math.log10(min(found)))
    high = max(math.ceil(math.log10(max(found))), low + 1)

    def x(kl: float) -> float:
        return LEFT + (RIGHT - LEFT) * (math.log10(max(kl, 1e-6)) - low) / (high - low)

    svg = Svg(WIDTH, ROW * len(kls) + 26, "KL to honest of every edit, by arm")
    for power in range(low, high + 1):
        svg.line(x(10.0**power), 0, x(10.0**power), ROW * len(kls), "grid")
        svg.text(x(10.0**power), svg.height - 8, f"{10.0**power:g}", "tick", "middle")
    for number, (name, values) in enumerate(kls.items()):
        y = ROW * number + ROW / 2
        svg.text(LEFT - 10, y + 4, name, "name", "end")
        for row, kl in zip(rows, values, strict=True):
            svg.dot(x(kl), y, 2.6, "edit", f"{row.key}: {kl:.5f}")
        mean = sum(values) / len(values)
        svg.rect(x(mean) - 1.5, y - 9, 3, 18, "mean", f"{name}, mean {mean:.5f}")
    return str(svg)
