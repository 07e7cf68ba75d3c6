"""What the whole suite shares: recorded trajectories and the embedded model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# litellm would otherwise fetch a price list when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from leyline_agent.errors import ModelUnavailable
from leyline_agent.serving.models import embedded

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def trajectories_dir() -> Path:
    """The folder of recorded runs, holding `native/` and `trajectories/`; skips where absent."""
    named = os.environ.get("LEYLINE_TRAJECTORIES")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not (folder / "trajectories").is_dir():
        if named:
            pytest.fail(f"LEYLINE_TRAJECTORIES={named} holds no folder 'trajectories'")
        pytest.skip("no recorded trajectories here; LEYLINE_TRAJECTORIES can name their folder")
    return folder


@pytest.fixture(scope="session")
def embedded_gguf() -> Path:
    """The embedded model's file, fetched once; skips without a network, except in CI."""
    try:
        return embedded.fetch()
    except ModelUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the embedded model cannot be fetched here: {error}")
