"""Rows of SWE-bench instances: those shipped, changed."""

from __future__ import annotations

import json
from typing import Any

from leyline_evals.swe_bench.instances import SHIPPED

__all__ = ["shipped"]


def shipped(name: str = "leyline__intervals-1", **changed: Any) -> dict[str, Any]:
    """A shipped instance's row, changed."""
    rows = map(json.loads, SHIPPED.read_text(encoding="utf-8").splitlines())
    row = next(row for row in rows if row["instance_id"] == name)
    return {**row, **changed}
