"""`leyline eval plan`: what a run could show."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ValidationError

from leyline_evals.solve import words
from leyline_evals.solve.config import Registration
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.power import told

__all__ = ["EvalPlan", "tell"]


class EvalPlan(BaseModel):
    """What `leyline eval plan --json` prints."""

    format: Literal["leyline-eval-plan"] = "leyline-eval-plan"
    version: Literal[1] = 1
    tasks: int
    seeds: int
    registration: Registration


def tell(
    tasks: int, seeds: int, expect: float, icc: float, alpha: float, power: float, json: bool
) -> None:
    """Print the difference that can be seen.

    Raises:
        EvalError: a figure is out of its range.
    """
    try:
        asked = Registration(
            first="first", second="second", rate=expect, icc=icc, alpha=alpha, power=power
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise EvalError(f"{first['loc'][0]}: {first['msg']}") from error
    made = told(asked, tasks, seeds)
    if json:
        plan = EvalPlan(tasks=tasks, seeds=seeds, registration=made)
        print(plan.model_dump_json(indent=2), flush=True)
        return
    print(words.seen(tasks, seeds, made))
