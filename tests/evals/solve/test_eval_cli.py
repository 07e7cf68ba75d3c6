"""`leyline eval` as it is typed: plan, run, resume, report, compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from leyline_agent.cli import main
from leyline_evals.solve.command import EvalSitting
from leyline_evals.solve.drivers import DRIVERS, load
from leyline_evals.solve.planning import EvalPlan
from leyline_evals.solve.report import EvalComparison, EvalReport

POLICY = "truncate_older_than:n=1,max_chars=50"
SUMS = ["eval", "sums", "--model", "scripted", "--num-tasks", 6, "--seeds", 2, "-p", POLICY]


def leyline(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_from_the_plan_to_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b, html = tmp_path / "a", tmp_path / "b", tmp_path / "page.html"
    assert leyline(*SUMS, "--out", a, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "6 tasks x 2 seeds x 3 arms, 36 episodes" in out
    assert "With 6 tasks x 2 seeds no difference is seen (80% of the time" in out
    assert "Registered" not in out
    assert not a.exists()

    assert leyline(*SUMS, "--out", a, "--for", "1s", "--workers", 2, "--json") == 0
    told = EvalSitting.model_validate_json(capsys.readouterr().out)
    assert told.episodes == 36
    assert leyline(*SUMS, "--out", a) == 0, "the same command goes on"
    capsys.readouterr()
    assert leyline("eval", "resume", a, "--json") == 0
    again = EvalSitting.model_validate_json(capsys.readouterr().out)
    assert (again.done, again.left, again.sha256) == (0, 0, told.sha256)

    assert leyline("eval", "report", a, "--json", "--html", html) == 0
    (run,) = EvalReport.model_validate_json(capsys.readouterr().out).runs
    assert (run.finished, run.due, run.problems) == (36, True, [])
    assert run.registration is not None
    assert run.registration.second == f"{POLICY}@repair"
    assert run.sha256 == told.sha256
    assert run.sha256 in html.read_text()

    assert leyline(*SUMS, "--out", b, "--wrong", 0.8) == 0
    capsys.readouterr()
    assert leyline("eval", "compare", a, b, "--arm", "repair", "--json") == 0
    (one,) = EvalComparison.model_validate_json(capsys.readouterr().out).arms
    assert one.pairs == 12
    assert one.difference is not None
    assert one.difference < 0


def test_tables_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = tmp_path / "a"
    assert leyline(*SUMS, "--out", a) == 0
    for words in (["report", a], ["compare", a, a], ["tasks", a, "--between", "0,1"]):
        capsys.readouterr()
        assert leyline("eval", *words) == 0
        assert capsys.readouterr().out.strip()


def test_errors_of_episodes_are_exit_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leyline(*SUMS, "--out", tmp_path / "a", "--broken", "sum-1") == 1
    told = capsys.readouterr().out
    assert "6 ended in an error and count for nothing" in told
    assert "most often: OSError: the disk of sum-1 is broken" in told


RAISING = """\
from leyline_agent import Policy


class Oops(Policy):
    def edits(self, trajectory):
        raise KeyError("oops")
"""


@pytest.mark.filterwarnings("ignore::leyline_agent.LeylineWarning")
def test_a_policy_that_raises_is_told_and_exit_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("oops.py").write_text(RAISING)
    words = ["eval", "sums", "--model", "scripted", "--num-tasks", 1, "--seeds", 2]
    assert leyline(*words, "-p", "oops.py:Oops", "--mechanisms", "plain", "--out", "a") == 1
    says = "the policy oops failed in 8 turns: KeyError: 'oops' (oops.py, line 6, in edits)"
    assert says in capsys.readouterr().out
    assert leyline("eval", "report", "a", "--json") == 0
    (run,) = EvalReport.model_validate_json(capsys.readouterr().out).runs
    assert run.problems == [f"oops.py:Oops@plain: {says}"]


def test_a_server_that_is_not_there_ends_the_sitting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyline_adapters.bundled.http_errors._backoff", lambda state: 0.0)
    words = ["eval", "sums", "--num-tasks", 2, "--seeds", 2, "-p", POLICY, "--out", tmp_path / "a"]
    url = ["--model", "m", "--adapter", "http", "--base-url", "http://127.0.0.1:9"]
    assert leyline(*words, *url) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert (
        "the first 3 episodes got no reply of m at http://127.0.0.1:9: ModelFailed: EngineUn"
        in told
    )
    assert f"leyline eval resume {tmp_path / 'a'} --retry-errors" in told
    assert len((tmp_path / "a" / "episodes.jsonl").read_text().splitlines()) == 3
    for why in (tmp_path / "a").glob("episodes/*/*/*/error.txt"):
        assert why.read_text().startswith("ModelFailed: EngineUnavailable: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eval", "sums", "--out", "x"], "--model is missing"),
        ([*SUMS], "--out is missing"),
        ([*SUMS, "--out", "x", "--for", "soon"], "--for 'soon': write a time"),
        ([*SUMS, "--out", "x", "--episode-time", "0m"], "--episode-time '0m'"),
        ([*SUMS, "--out", "x", "--price", "3"], "--price '3': write three prices"),
        ([*SUMS, "--out", "x", "--mechanisms", "fast"], "no mechanism 'fast'"),
        ([*SUMS, "--out", "x", "-p", "nonsense"], "no policy"),
        ([*SUMS, "--out", "x", "--primary", "keep_all"], "--primary 'keep_all': write two arms"),
        ([*SUMS, "--out", "x", "--primary", "repair,repair"], "two different arms"),
        ([*SUMS, "--out", "x", "--primary", "keep_all,forget"], "no arm 'forget'"),
        ([*SUMS, "--out", "x", "sum-99"], "no task matches 'sum-99'"),
        ([*SUMS, "--out", "x", "--adapter", "http"], "--adapter and --plain are for a server"),
        ([*SUMS, "--out", "x", "--expect", "1.5"], "rate"),
        ([*SUMS, "--out", "x", "--price", "-1,0,0"], "write three prices"),
        ([*SUMS, "--out", "x", "--base-url", "http://h", "--plain", "x"], "--plain x: one of"),
        (["eval", "report", "nowhere"], "nowhere holds no run"),
        (["eval", "resume", "nowhere"], "nowhere holds no run"),
        (["eval", "plan", "8", "4", "--icc", "2"], "icc"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[Any],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert leyline(*words) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_what_is_missing_is_told_before_a_run_is_registered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path / "home"))
    words = ["eval", "debug-gym", "--model", "scripted", "--num-tasks", 1, "--sandbox", "none"]
    assert leyline(*words, "--out", tmp_path / "a") == 2
    told = capsys.readouterr()
    assert "run `leyline eval setup debug-gym`" in told.err
    assert "Registered" not in told.out
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("time", ["soon", "5x"])
def test_a_wrong_time_is_told_before_the_plan(
    time: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leyline(*SUMS, "--out", tmp_path / "a", "--for", time) == 2
    assert capsys.readouterr().out == ""


def test_another_run_in_the_same_folder_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leyline(*SUMS, "--out", tmp_path / "a", "sum-0") == 0
    assert leyline(*SUMS, "--out", tmp_path / "a", "sum-0", "--seeds", 3) == 2
    told = capsys.readouterr().err
    assert "holds a run with other options (seeds)" in told
    assert "leyline eval resume" in told


def test_the_primary_comparison_may_name_arms_with_commas(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    primary = f"{POLICY}@plain,{POLICY}@repair"
    assert leyline(*SUMS, "--out", tmp_path / "a", "--primary", primary, "--dry-run") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Primary comparison: {POLICY}@repair against {POLICY}@plain." in told


def test_a_plan_before_there_is_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert leyline("eval", "plan", 8, 4, "--json") == 0
    plan = EvalPlan.model_validate_json(capsys.readouterr().out)
    assert plan.registration.detectable is not None
    assert 0.3 < plan.registration.detectable < 0.5
    assert leyline("eval", "plan", 4, 100) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "no difference can be seen, however large" in told


@pytest.mark.parametrize("name", DRIVERS)
def test_every_benchmark_can_be_made_again(name: str) -> None:
    assert callable(load(DRIVERS[name].command))
    assert callable(load(DRIVERS[name].make))


@pytest.mark.parametrize(
    "name", [*DRIVERS, "resume", "report", "compare", "plan", "tasks", "setup"]
)
def test_every_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leyline("eval", name, "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"Example: leyline eval {name} " in told


def test_options_of_every_run_stand_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert leyline("eval", "sums", "--help") == 0
    told = capsys.readouterr().out
    titles = ("Options", "The run", "Model", "Arms and what they show", "Limits of an episode")
    places = [told.index(f" {title} ") for title in titles]
    assert places == sorted(places)
    assert places[0] < told.index("--wrong") < places[1]
    assert (
        places[1] < told.index("--retry-errors") < places[2] < told.index("--base-url") < places[3]
    )
    assert places[3] < told.index("--mechanisms") < places[4] < told.index("--episode-time")


def test_the_help_names_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert leyline("eval", "--help") == 0
    assert "docs/evals.md" in capsys.readouterr().out


def test_json_goes_alone_to_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leyline(*SUMS, "--out", tmp_path / "a", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["format"] == "leyline-eval-sitting"
    assert "Primary comparison" in told.err


def test_a_library_that_is_missing_is_told_with_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leyline(*SUMS, "--out", tmp_path / "a", "sum-0") == 0
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert leyline("eval", "report", tmp_path / "a") == 2
    assert "needs scipy.stats; pip install 'leyline-agent[eval]'" in capsys.readouterr().err
