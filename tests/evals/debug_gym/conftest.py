from __future__ import annotations

from pathlib import Path

import pytest
from gym_runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a task."""
    return Run(tmp_path / "episode")
