"""`leyline replay` as it is typed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_evals.replay.report import ReplayReport

POLICY = "truncate_older_than:n=2,max_chars=20"


def leyline(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_counting(
    runs_file: Callable[..., Path],
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    status = leyline(
        "replay", runs_file(5, 8), "-p", POLICY, "--tokens-only", "--model", tiny_folder,
        "--json", out, "--html", page,
    )  # fmt: skip
    assert status == 0
    shown = capsys.readouterr().out
    assert "amortize" in shown
    report = json.loads(out.read_text())
    arms = report["arms"]
    assert set(arms) == {"append_only", "prefix_cache", "forget", "amortize", "repair"}
    for figures in arms.values():
        known = {name: figures[f"{name}_tokens"] for name in ("prompt", "prefilled", "reused")}
        assert known["prompt"] == sum(
            (known["prefilled"], known["reused"], figures["recomputed_tokens"])
        )
        assert figures["ttft_ms"] is None
    assert arms["amortize"]["spliced_tokens"] > 0
    assert ReplayReport.model_validate(report).config.tokens_only
    assert page.read_text().startswith("<!doctype html>")
    assert (tmp_path / "out.runs.jsonl").is_file()


def test_running_a_model_with_fidelity(
    runs_file: Callable[..., Path], tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    status = leyline(
        "replay", runs_file(6), "-p", POLICY, "--arms", "append_only,prefix_cache,repair",
        "--model", tiny_folder, "--json", out, "--fidelity", "--fidelity-turns", 2,
        "--max-turns", 5, "--limit", 1,
    )  # fmt: skip
    assert status == 0
    report = ReplayReport.model_validate_json(out.read_text())
    assert list(report.arms) == ["append_only", "prefix_cache", "repair"]
    timed = report.arms[next(iter(report.arms))].ttft_ms
    assert timed is not None
    assert 0 < timed.p50 <= timed.p99
    assert report.fidelity is not None
    assert report.fidelity["repair"].turns == 2
    assert report.runs[0].turns == 5


def test_resuming(runs_file: Callable[..., Path], tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    files = runs_file(3, 4)
    again = ("replay", files, "-p", POLICY, "--tokens-only", "--model", tiny_folder, "--json", out)
    assert leyline(*again, "--limit", 1) == 0
    assert leyline(*again, "--resume") == 0
    kept = (tmp_path / "out.runs.jsonl").read_text().splitlines()
    assert len(kept) == 1 + 2 * 5
    assert len(json.loads(out.read_text())["runs"]) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--arms", "forge"], "no arm 'forge'"),
        (["--policy", "kep_last"], "did you mean 'keep_last'"),
        (["--policy", "keep_last:m=5"], "options:"),
        (["--resume"], "--resume goes on with the file beside --json"),
        (["--fidelity", "--tokens-only"], "--fidelity needs the model"),
        (["--model", "no-such-model"], "no model 'no-such-model'"),
        (["--json", "nowhere/out.json"], "there is no folder"),
        (["--html", "nowhere/out.html"], "there is no folder"),
    ],
)
def test_bad_options(
    runs_file: Callable[..., Path],
    tiny_folder: Path,
    options: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: dict[str, list[str]] = {"--policy": [POLICY], "--model": [str(tiny_folder)]}
    defaults = [w for name, value in given.items() if name not in options for w in (name, *value)]
    assert leyline("replay", runs_file(2), *defaults, *options) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "not json", '{"foo": 1}'])
def test_bad_files(
    tmp_path: Path, tiny_folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    options = ("-p", POLICY, "--tokens-only", "--model", tiny_folder)
    assert leyline("replay", path, *options) == 2
    assert str(path) in capsys.readouterr().err
    assert leyline("replay", tmp_path / "none.jsonl", *options) == 2
    assert "cannot be opened" in capsys.readouterr().err


def test_an_arm_that_did_not_do_its_job_is_an_error(
    runs_file: Callable[..., Path],
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from leyline_evals.replay import totals

    monkeypatch.setattr(totals, "problems", lambda made: ["amortize spliced nothing"])
    options = ("-p", POLICY, "--tokens-only", "--model", tiny_folder)
    assert leyline("replay", runs_file(3), *options) == 1
    assert "PROBLEM: amortize spliced nothing" in capsys.readouterr().out


def test_the_commands_are_light_to_load() -> None:
    code = (
        "import sys, leyline_evals.cli\n"
        "print({'torch', 'numpy', 'transformers', 'jinja2'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
