from __future__ import annotations

import json
from pathlib import Path

import pytest

from leyline_agent import cli
from leyline_agent.cli.models import ModelsReport, report
from leyline_agent.serving.models import embedded


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["models", *arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path))
    return tmp_path


def test_json_is_the_report(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json") == 0
    printed = capsys.readouterr().out
    assert ModelsReport.model_validate_json(printed) == report()
    assert json.loads(printed)["folder"] == str(home / "models")


def test_the_report_tells_the_default_and_what_is_there(home: Path) -> None:
    models = {model.name: model for model in report().models}
    assert models.keys() == embedded.KNOWN.keys()
    assert [name for name, model in models.items() if model.default] == [embedded.DEFAULT]
    assert not any(model.fetched for model in models.values())


def test_a_complete_file_counts_as_fetched(home: Path) -> None:
    weights = embedded.KNOWN[embedded.DEFAULT]
    target = home / "models" / weights.file
    target.parent.mkdir()
    with target.open("wb") as file:
        file.truncate(weights.size)
    assert [model.fetched for model in report().models if model.default] == [True]


def test_the_table_names_every_model(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in embedded.KNOWN)
    assert str(home) in out.replace("\n", "")


def test_fetch_prints_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--json", "fetch") == 2
    assert "fetch prints one path" in capsys.readouterr().err


def test_fetching_an_unknown_model_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fetch", "gpt-9") == 2
    assert "gpt-9" in capsys.readouterr().err


@pytest.mark.model
def test_fetch_prints_only_the_path(
    embedded_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fetch") == 0
    assert capsys.readouterr().out == f"{embedded_gguf}\n"
