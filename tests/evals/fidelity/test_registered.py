"""The registered test can be run as it is written down."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline_agent.serving.models.embedded import KNOWN
from leyline_evals.fidelity.arms import parse_arms
from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.registered import find, registration


def test_every_arm_and_pair_means_something() -> None:
    whole, digest = registration()
    arms = {arm.name for arm in parse_arms(whole.arms)}
    assert {name for pair in whole.pairs for name in pair} <= arms
    assert {"amortize", "repair"} <= arms  # a verdict is made of these
    assert len(digest) == 16
    assert whole.about.keys() >= {"metric", "budget", "decision", "exclusions", "split"}
    for test in whole.tests.values():
        assert test.model in KNOWN
        assert test.selection.part == "test"
        assert test.limit >= 60


def test_a_test_carries_the_hash(trajectories_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_TRAJECTORIES", str(trajectories_dir))
    found = find("smollm2")
    assert found.limit == 200
    assert found.config.registered == f"smollm2 {registration()[1]}"
    assert all(path.is_file() for path in found.files)


def test_where_the_runs_are_not_named_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEYLINE_TRAJECTORIES", raising=False)
    with pytest.raises(FidelityError, match="LEYLINE_TRAJECTORIES has to name"):
        find("qwen")


def test_where_a_file_is_missing_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LEYLINE_TRAJECTORIES", str(tmp_path))
    with pytest.raises(FidelityError, match="is not there"):
        find("qwen")
