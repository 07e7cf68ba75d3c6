"""`leyline fidelity` on the command line, with the tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_agent.directive import Mode
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.load import LoadedModel
from leyline_evals.fidelity.command import seconds
from leyline_evals.fidelity.errors import FidelityError


def run(*given: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in ("fidelity", *given)])
    return int(ended.value.code or 0)


def test_a_report_that_an_engine_obeys(
    runs_file: Callable[..., Path],
    tiny_folder: Path,
    tiny_model: LoadedModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, html = tmp_path / "fidelity.json", tmp_path / "page.html"
    options = ["--tokens", "100-3000", "--arms", "amortize+repair", "--limit", 2, "--calls", 0]
    options += [
        "--generated",
        0,
        "--model",
        tiny_folder,
        "--dtype",
        "float32",
        "--json",
        out,
        "--html",
        html,
    ]
    runs = runs_file(12, 11, chars=900)
    assert run(runs, *options) == 1  # two edits tell nothing: FORGET
    shown = capsys.readouterr()
    assert "in forget at least" in shown.out
    assert "too few to tell: 2 edits of 1 trajectory; 20 of 8 would do" in " ".join(
        shown.out.split()
    )
    assert "2 edits of 1 recorded run," in " ".join(shown.out.split())
    assert re.search(r"^noise +\d\.\d{4} +- +\d", shown.out, re.M), "one trajectory, no interval"
    assert "1 of 2: runs/run " in shown.err
    report = json.loads(out.read_text())
    assert report["format"] == "leyline-fidelity"
    assert len((tmp_path / "fidelity.edits.jsonl").read_text().splitlines()) == 3
    assert html.read_text().startswith("<!doctype html>")
    engine = Engine.of(tiny_model, EngineConfig(kv_bytes=1 << 20, fidelity_report=out))
    assert engine.config.rules.fidelity_floor is Mode.FORGET
    assert run(runs, *options, "--resume") == 1
    assert "of 2:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--for", "soon"], "is no time"),
        (["--tokens", "many"], "is no range"),
        (["--tokens", "20-10"], "tokens is none"),
        (["--arms", "nothing"], "repair set"),
        (["--resume"], "name OUT"),
        (["--registered", "nothing"], "no test is registered"),
        (["--registered", "nothing", "--model", "x"], "says --model itself"),
        (["--registered", "nothing", "--limit", 36], "says --limit itself"),
        (["x.jsonl", "--registered", "nothing"], "says FILES itself"),
        (["absent.jsonl", "--model", "absent"], "absent"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*given) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("60m", 3600), ("1.5h", 5400)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_a_time_has_a_unit() -> None:
    with pytest.raises(FidelityError, match="is no time"):
        seconds("60")
