"""Several policies side by side, and policies that ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from leyline_agent import Ask
from leyline_agent.cli import main
from leyline_agent.errors import LeylineError
from leyline_agent.question import Answered
from leyline_evals.replay import fulfil as fulfillers
from leyline_evals.replay import pool
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.compare import Comparison, compare, expanded
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.fulfil import fulfiller
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import replay
from leyline_evals.replay.workload import Workload

Runs = Callable[..., Path]

SUMMARISE = "summarise:trigger=300,keep=2,clear_at_least=150,max_tokens=40"


def leyline(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_one_table_of_several_policies(
    runs_file: Runs, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, out = tmp_path / "policies.txt", tmp_path / "out.json"
    listed.write_text(f"# What we compare.\n\nkeep_last:n=2\nerratum:fields=line\n{SUMMARISE}\n")
    status = leyline(
        "replay", runs_file(12, 9), "--tokens-only", "--model", tiny_folder, "--jobs", 1,
        "-p", "keep_all", "-p", f"@{listed}", "--fulfil", "extract", "--json", out,
    )  # fmt: skip
    assert status == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")
    ]
    assert [row[0] for row in rows] == [
        "`keep_all`", "`keep_last:n=2`", "`erratum:fields=line`", f"`{SUMMARISE}`",
    ]  # fmt: skip
    found = Comparison.model_validate_json(out.read_text())
    assert (found.runs, found.turns, found.fulfil) == (2, 21, "extract")
    assert "2 runs, 21 turns of runs.jsonl" in lines[0]
    keep_all, keep_last, _, summarise = found.rows
    assert keep_all.edits == 0
    assert len(set(keep_all.compute_tokens.values())) == 1
    for row in (keep_last, summarise):
        computed = row.compute_tokens
        assert row.prompt_tokens < keep_all.prompt_tokens
        assert computed[Arm.AMORTIZE] <= computed[Arm.REPAIR] < computed[Arm.PREFIX_CACHE]
        assert row.problems == []


def test_processes_are_started_once_for_all_policies(
    runs_file: Runs, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def counted(jobs: int, *rest: object) -> ProcessPoolExecutor:
        started.append(jobs)
        return ProcessPoolExecutor(jobs, *rest)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(pool, "ProcessPoolExecutor", counted)
    files = [runs_file(2, 5, 3, 6, 2, 4, 3, 2, 7)]
    config = Config(policy="", model=str(tiny_folder), tokens_only=True)
    policies = ["keep_all", "keep_last:n=2"]
    alone, pooled = (
        [row for row, _ in compare(policies, files, None, config, jobs=jobs)] for jobs in (1, 2)
    )
    assert pooled == alone
    assert started == [2]


def test_a_policy_that_forgets_has_one_figure_for_both_ways_of_splicing(
    runs_file: Runs, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    leyline(
        "replay", runs_file(8), "--tokens-only", "--model", tiny_folder,
        "-p", "keep_all", "-p", "redact:patterns=of the file", "--json", out,
    )  # fmt: skip
    row = json.loads(out.read_text())["rows"][1]
    assert set(row["compute_tokens"]) == {"prefix_cache", "forget"}
    assert row["edits"] > 0
    *_, repair, amortize, _, _ = capsys.readouterr().out.splitlines()[4].split("|")
    assert repair == amortize


def test_in_the_arms_of_one_policy_what_forgets_is_no_problem(
    runs_file: Runs, counting: Engines
) -> None:
    config = Config(policy="redact:patterns=of the file", model="tiny", tokens_only=True)
    report = replay(Workload([runs_file(8)]), config, counting).report
    assert report.problems == []
    assert report.arms[Arm.AMORTIZE].edits > 0
    assert report.arms[Arm.AMORTIZE].spliced_tokens == 0


def test_a_policy_that_asks_says_what_to_do_when_nobody_answers(
    runs_file: Runs, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = leyline(
        "replay", runs_file(12), "--tokens-only", "--model", tiny_folder, "-p", SUMMARISE
    )
    assert status == 2
    told = capsys.readouterr().err
    assert "policy summarise wants a model asked" in told
    assert "--fulfil extract answers with the beginnings of what was asked about" in told


def test_a_question_is_asked_once_for_all_arms(
    runs_file: Runs, counting: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(ask: Ask) -> Answered:
        asked.append(ask.key)
        return Answered("They pass.", 9)

    monkeypatch.setitem(fulfillers.FULFILLERS, "extract", answer)
    config = Config(policy=SUMMARISE, model="tiny", tokens_only=True, fulfil="extract")
    report = replay(Workload([runs_file(14)]), config, counting).report
    edits = {report.arms[arm].edits for arm in ALL_ARMS if arm.edits}
    assert len(edits) == 1
    assert edits != {0}
    assert len(asked) == len(set(asked)) > 0


BROKEN = """
from leyline_agent.policy import policy


@policy
def broken(trajectory):
    if len(trajectory.messages) > 4:
        raise ValueError("my bad")
    return []
"""


def test_a_policy_that_fails_is_a_problem(
    runs_file: Runs, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = tmp_path / "mine.py", tmp_path / "out.json"
    mine.write_text(BROKEN)
    command = (
        "replay", runs_file(4, 3), "--tokens-only", "--model", tiny_folder, "--json", out,
        "-p", f"{mine}:broken+dedupe",
    )  # fmt: skip
    # Of both runs the first two turns are short enough.
    problem = "the policy broken failed in 3 of 7 turns: ValueError: my bad (mine.py, line 8, in "
    assert leyline(*command) == 1
    shown, told = capsys.readouterr()
    assert f"PROBLEM: {problem}" in " ".join(shown.split())
    assert "edited nothing" not in shown
    assert "Warning" not in told
    [found] = json.loads(out.read_text())["problems"]
    assert found.startswith(problem)

    assert leyline(*command, "-p", "dedupe") == 1
    assert f"PROBLEM: {mine}:broken+dedupe: {problem}" in capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert [row["problems"] for row in rows] == [[found], []]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-p", "keep_all", "-p", "dedupe"], "several policies are compared with --tokens-only"),
        (["-p", "keep_all", "-p", "dedupe", "--tokens-only", "--arms", "repair"], "without --arms"),
        (["-p", "keep_all", "-p", "dedupe", "--tokens-only", "--html", "x"], "without --html"),
        (["-p", "@nowhere.txt", "--tokens-only"], "--policy @nowhere.txt: cannot be read"),
        (["-p", "keep_all", "-p", "keep_lost", "--tokens-only"], "no policy named 'keep_lost'"),
        (
            ["-p", "dedupe", "--tokens-only", "--fulfil", "me"],
            "'me': it is one of extract, litellm",
        ),
    ],
)
def test_what_does_not_fit_is_told(
    runs_file: Runs,
    arguments: list[str],
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert leyline("replay", runs_file(3), *arguments) == 2
    assert problem in capsys.readouterr().err


def test_a_file_without_policies_is_none(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(LeylineError, match="no policy in it; write one a line"):
        expanded([f"@{tmp_path}/none.txt"])
    with pytest.raises(ReplayError, match="it is one of extract, litellm"):
        fulfiller("nobody")
