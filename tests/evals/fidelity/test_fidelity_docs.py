"""docs/fidelity.md, held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import typer
import typer.main

from leyline_evals.fidelity.arms import ARMS
from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.command import command
from leyline_evals.fidelity.report import ArmFigures, Comparison, FidelityReport, ProbeFigures
from leyline_evals.fidelity.verdict import DEFAULT

TEXT = (Path(__file__).parents[3] / "docs" / "fidelity.md").read_text()


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text: str) -> list[str]:
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_json_is_documented() -> None:
    text = section("JSON")
    names = [name.removesuffix("[]") for name in first_cells(text)]
    assert names == list(FidelityReport.model_fields)
    for kind, name in (
        (ArmFigures, "arms"),
        (ProbeFigures, "probes"),
        (Comparison, "comparisons[]"),
    ):
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
        assert set(kind.model_fields) <= set(re.findall(r"`(\w+)`", row))


def test_the_arms_and_orders_are_documented() -> None:
    assert first_cells(section("The arms")) == list(ARMS)
    assert first_cells(section("What is measured")) == [order.value for order in Order]


def test_the_options_are_documented() -> None:
    app = typer.Typer()
    app.command()(command)
    options = {
        option
        for parameter in typer.main.get_command(app).params
        for option in parameter.opts
        if option.startswith("--") and option not in ("--install-completion", "--show-completion")
    }
    head = TEXT.split("\n## ", 1)[0]
    assert {name for name in first_cells(head) if name.startswith("--")} == options


def test_the_limits_are_documented() -> None:
    said = section("The verdict")
    assert f"{DEFAULT.edits} edits of {DEFAULT.clusters} trajectories" in said
    assert f"below {DEFAULT.kl:g}" in said
    assert f"in {DEFAULT.top1:.0%}".replace("%", " %") in said
    assert DEFAULT.noise == 2
