"""Runs of the toy benchmark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_runs import config_of

from leyline_evals.solve.folder import RunFolder
from leyline_evals.solve.toy import Sums

Planned = Callable[..., tuple[RunFolder, Sums]]


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    """Plans a run: its folder, and the driver."""

    def plan(name: str = "run", seeds: int = 2, **options: Any) -> tuple[RunFolder, Sums]:
        driver = Sums(**options)
        return RunFolder.create(tmp_path / name, config_of(driver, seeds)), driver

    return plan
