"""`leyline replay` as it is typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_agent.policy import available
from leyline_evals.replay.arms import ALL_ARMS
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
        (["--json", "."], "--json .: a folder; name a file in it"),
        (["--json", "--tokens-only"], "--json needs a file, not --tokens-only"),
        (["--html", "-"], "--html needs a file, not -"),
        (["--json", "same", "--html", "same"], "--html same would overwrite what --json writes"),
        (["--resume", "--json", "-"], "--resume goes on with the file beside --json"),
        (["--policy", ""], "empty policy in ''"),
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


def test_what_edits_nothing_needs_no_policy(
    runs_file: Callable[..., Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (runs_file(3), "--tokens-only", "--model", tiny_folder)
    assert leyline("replay", *options, "--arms", "append_only") == 0
    assert "append_only" in capsys.readouterr().out
    assert leyline("replay", *options, "--arms", "append_only,forget,repair") == 2
    said = capsys.readouterr().err
    assert "--policy is missing: it edits the runs in forget, repair." in said
    assert f"installed: {', '.join(sorted(available()))}" in said


def test_figures_on_standard_output_stand_alone(
    runs_file: Callable[..., Path], tiny_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--tokens-only", "--model", tiny_folder, "--json", "-", "-p", POLICY)
    assert leyline("replay", runs_file(4), *options) == 0
    out, err = capfd.readouterr()
    assert list(ReplayReport.model_validate_json(out).arms) == list(ALL_ARMS)
    assert "amortize" in err
    assert not Path("-").exists()


def test_a_recording_is_never_overwritten(
    runs_file: Callable[..., Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs_file(2, name="out.runs.jsonl")
    before = path.read_bytes()
    options = ("-p", POLICY, "--tokens-only", "--model", tiny_folder)
    for more in (("--json", path), ("--html", path), ("--json", path.with_name("out.json"))):
        assert leyline("replay", path, *options, *more) == 2
        assert "would overwrite the recording to be read" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_file_that_is_not_there_is_told_before_anything_runs(
    runs_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = (runs_file(2), tmp_path / "none.jsonl")
    assert leyline("replay", *files, "-p", POLICY, "--model", "no-such-model") == 2
    assert "none.jsonl: cannot be opened" in capsys.readouterr().err


def test_broken_records_are_told_beside_the_figures(
    runs_file: Callable[..., Path], tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs_file(4)
    with path.open("a") as file:
        file.write('{"\\u001b]0;owned\\u0007": 1}\n')
    assert leyline("replay", path, "-p", POLICY, "--tokens-only", "--model", tiny_folder) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "skipped 1 records" in out
    assert "line 2: no reader recognises" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_after_ctrl_c_the_same_command_goes_on(
    runs_file: Callable[..., Path], tiny_folder: Path, tmp_path: Path, jobs: int
) -> None:
    runs, out, kept = 60, tmp_path / "out.json", tmp_path / "out.runs.jsonl"
    options = ["-p", POLICY, "--tokens-only", "--model", tiny_folder, "--json", out]
    # A job in the background of a shell ignores SIGINT, and so would what this suite starts there.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; from leyline_agent.cli import main; main()"
    command = [sys.executable, "-c", code, "replay", runs_file(*[8] * runs), *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*map(str, command), "--jobs", str(jobs)], stderr=pipe, text=True, start_new_session=True
    ) as process:
        while not kept.exists() or kept.read_text().count("\n") < 1 + 3 * len(ALL_ARMS):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it, too
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line for line in err.splitlines() if line.startswith("leyline:")] == [
        f"leyline: stopped; finished runs are in {kept}: the same command with --resume goes on"
    ]
    assert "Traceback" not in err
    before = kept.read_text()
    assert not out.exists()
    assert leyline(*command[3:], "--resume", "--jobs", "1") == 0
    assert kept.read_text().startswith(before[: before.rindex("\n")])
    assert kept.read_text().count("\n") == 1 + runs * len(ALL_ARMS)
    assert len(json.loads(out.read_text())["runs"]) == runs


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

    monkeypatch.setattr(totals, "problems", lambda *_: ["amortize spliced nothing"])
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
