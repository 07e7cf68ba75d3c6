"""The command's own options, and what it says where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_evals.swe_bench.environment import VARIABLE


def told(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """What the command says on standard error when it does not work."""
    with pytest.raises(SystemExit) as ended:
        main(["eval", "swe-bench", *given])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_without_its_environment_the_command_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "run `leyline eval setup swe-bench`" in told(capsys, "--predictions", "gold")


def test_an_interpreter_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    assert "there is no such interpreter" in told(capsys, "--predictions", "gold")


def test_options_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--test-time 'soon': write a time" in told(capsys, "--test-time", "soon")
    assert "'bare' is not one of" in told(capsys, "--sandbox", "bare")


def test_predictions_need_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "python").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "python"))
    assert "--out is missing" in told(capsys, "--predictions", "gold")
