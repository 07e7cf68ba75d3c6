"""`leyline eval report` and `leyline eval compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leyline_evals.solve.errors import EvalError

__all__ = ["compare", "report"]


def report(runs: Sequence[Path], html: Path | None, json: bool) -> None:
    """Print what runs found."""
    raise EvalError("not yet")


def compare(a: Path, b: Path, arms: Sequence[str], json: bool) -> None:
    """Print two runs side by side."""
    raise EvalError("not yet")
