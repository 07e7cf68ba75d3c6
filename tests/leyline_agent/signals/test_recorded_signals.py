"""Invariants that hold on every recorded run; nothing here is tuned to one of them."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline_agent import edit
from leyline_agent.signals import failure, failures, stale
from leyline_agent.signals.commands import pipelines
from leyline_agent.trajectory import Observations, ToolResult, Trajectory
from leyline_policies.stale_reads import StaleReads

ANSWERING = {"grep", "diff", "git", "test", "["}


def recorded(folder: Path, pattern: str) -> Iterator[tuple[dict[str, Any], Trajectory]]:
    """The runs of a source; plain-text harnesses are those without tool messages."""
    for path in sorted((folder / "trajectories").glob(pattern)):
        with gzip.open(path, "rt") as lines:
            for line in lines:
                run = json.loads(line)
                messages = run["messages"]
                tools = any(message["role"] == "tool" for message in messages)
                observations: Observations = "tool" if tools else "user"
                yield run, Trajectory(messages=messages, observations=observations)


@pytest.fixture(scope="module")
def everything(trajectories_dir: Path) -> list[Trajectory]:
    return [trajectory for _, trajectory in recorded(trajectories_dir, "*.jsonl.gz")]


@pytest.fixture(scope="module")
def mini(trajectories_dir: Path) -> list[tuple[dict[str, Any], Trajectory]]:
    return list(recorded(trajectories_dir, "mini_swe_agent*.jsonl.gz"))


def status(result: ToolResult) -> int:
    """The status mini-swe-agent wrote, whatever stands around it."""
    match = re.search(r"<returncode>(-?\d+)</returncode>", result.content[:3000])
    assert match
    return int(match[1])


def test_every_status_but_zero_is_a_failure_or_an_answer(
    mini: list[tuple[dict[str, Any], Trajectory]],
) -> None:
    for run, trajectory in mini:
        codes = [status(result) for result in trajectory.tool_results]
        assert sum(code != 0 for code in codes) == run["extra"]["nonzero_returncodes"]
        for result, code in zip(trajectory.tool_results, codes, strict=True):
            found = failure(result)
            if code != 0 and found is None:
                assert result.call
                lines = pipelines(result.call.arguments["command"])
                assert code == 1
                assert lines
                assert lines[-1].commands[-1].program in ANSWERING
            elif found and found.stated:
                assert found.exit_code == code != 0
            elif found:
                assert code == 0


def test_a_believed_status_of_zero_needs_no_pipe(
    mini: list[tuple[dict[str, Any], Trajectory]],
) -> None:
    for _, trajectory in mini:
        for result in trajectory.tool_results:
            found = failure(result)
            if found and not found.stated:
                assert result.call
                assert re.search(r"[|;\n]", result.call.arguments["command"])


def test_evidence_is_quoted_from_the_result(everything: list[Trajectory]) -> None:
    for trajectory in everything:
        contents = {result.index: result.content for result in trajectory.tool_results}
        for found in failures(trajectory):
            words = set(re.findall(r"\w+", found.evidence[:150])) - {"ERROR", "Error"}
            assert words <= set(re.findall(r"\w+", contents[found.index])) | _cut(found.evidence)


def _cut(evidence: str) -> set[str]:
    """The last word of a quote may be cut short."""
    return set(re.findall(r"\w+", evidence[:150])[-1:])


def test_what_supersedes_comes_later_and_stands(everything: list[Trajectory]) -> None:
    for trajectory in everything:
        results = {result.index: result for result in trajectory.tool_results}
        for item in stale(trajectory):
            assert item.superseded_by > item.result.index
            superseding = failure(results[item.superseded_by])
            if item.kind == "reread":
                assert superseding is None
            if superseding:
                assert superseding.kind not in ("malformed_call", "timeout")


def test_a_file_read_again_is_still_shown(everything: list[Trajectory]) -> None:
    """Following one read to the next ends at a result that shows the file or at an edit of it."""
    for trajectory in everything:
        results = {result.index: result for result in trajectory.tool_results}
        found = {item.result.index: item for item in stale(trajectory)}
        for item in [item for item in found.values() if item.kind == "reread"]:
            name = item.path.rpartition("/")[2]
            while item.kind == "reread":
                newer = results[item.superseded_by]
                assert newer.call
                assert name in f"{newer.call.raw_arguments}{newer.content}"
                if newer.index not in found:
                    break
                item = found[newer.index]


def test_the_past_does_not_change_as_a_run_grows(everything: list[Trajectory]) -> None:
    """What is stale stays so, for the same reason: a stub once written stays true."""
    for trajectory in everything[::9]:
        half = len(trajectory.messages) // 2
        before = Trajectory(
            messages=trajectory.messages[:half], observations=trajectory.observations
        )
        later = {item.result.index: item for item in stale(trajectory)}
        # The working directory is a majority's; one that changes may change what was matched.
        told = [item for item in stale(before) if item.result.index in later]
        assert len(told) >= 0.9 * len(stale(before))
        for item in told:
            assert later[item.result.index].superseded_by == item.superseded_by


def test_stale_outputs_can_be_stubbed_everywhere(everything: list[Trajectory]) -> None:
    for trajectory in everything:
        edits = edit.check(StaleReads().propose(trajectory), trajectory.messages)
        assert StaleReads().propose(trajectory.edited(edits)) == []


def test_every_kind_occurs(everything: list[Trajectory]) -> None:
    kinds = {found.kind for trajectory in everything for found in failures(trajectory)}
    assert kinds >= {"malformed_call", "timeout", "exit_code", "traceback", "tests_failed"}
    reasons = {item.kind for trajectory in everything for item in stale(trajectory)}
    assert reasons == {"edited", "reread", "rerun"}
