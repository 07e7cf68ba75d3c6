"""docs/evals.md, held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from leyline_evals.solve import words
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.command import EvalSitting
from leyline_evals.solve.config import Registration
from leyline_evals.solve.driver import Ended
from leyline_evals.solve.planning import EvalPlan
from leyline_evals.solve.power import told
from leyline_evals.solve.report import (
    ArmReport,
    Comparison,
    EvalComparison,
    EvalReport,
    RunReport,
    TaskReport,
)

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "evals.md").read_text()
NAMES = set(re.findall(r"`([\w*]+)(?:\[\])?`", TEXT.partition("\n## JSON\n")[2]))
IN_WORDS = {"measure", "test", "beside", "secondary", "excluded", "due"}


def is_told(name: str) -> bool:
    return any(re.fullmatch(told.replace("*", r"\w+"), name) for told in NAMES)


@pytest.mark.parametrize(
    "model",
    [EvalSitting, EvalPlan, EvalReport, RunReport, ArmReport, Comparison, TaskReport,
     EvalComparison, Registration],
)  # fmt: skip
def test_every_field_is_documented(model: type[BaseModel]) -> None:
    fields = set(model.model_fields) - (IN_WORDS if model is Registration else set())
    assert not {name for name in fields if not is_told(name)} - {"notes"}


def test_every_mechanism_and_end_is_explained() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.M))
    assert {one.value for one in Mechanism} <= rows
    assert {one.value for one in Ended} <= rows


def test_what_the_example_plan_can_see_is_what_is_printed() -> None:
    said = re.findall(r"`(With 12 tasks x 4 seeds .*?)` \(`--expect 0\.4`\)", TEXT, re.S)
    asked = Registration(first="a", second="b", rate=0.4)
    printed = words.seen(12, 4, told(asked, 12, 4))
    assert [" ".join(one.split()) for one in said] == [printed.partition(" (")[0]]


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(compile(code, "docs/evals.md", "exec"), {})
    assert capsys.readouterr().out.startswith("sum-0 answer ")
