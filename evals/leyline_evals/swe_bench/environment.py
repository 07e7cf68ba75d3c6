"""The environment that has mini-swe-agent and swebench, apart from ours and from debug-gym's."""

from __future__ import annotations

import os
from pathlib import Path

from leyline_evals.solve.environments import find
from leyline_evals.solve.errors import EvalError

__all__ = ["VARIABLE", "python"]

VARIABLE = "LEYLINE_SWE_BENCH_PYTHON"


def python() -> Path:
    """Its interpreter; `LEYLINE_SWE_BENCH_PYTHON` names that of another.

    Raises:
        EvalError: there is none; the error says how to make it.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return find("swe-bench").python
    if not Path(named).is_file():
        raise EvalError(f"{VARIABLE}={named}: there is no such interpreter")
    return Path(named)
