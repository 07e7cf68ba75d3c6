from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline_agent import edit as edit_module
from leyline_agent.readers import read
from leyline_agent.trajectory import Trajectory
from leyline_policies.pivot_trim import PivotTrim

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

LONG = "still the same result\n" * 20


def saying(trajectory: Trajectory, place: int, text: str) -> Trajectory:
    """The same run, with these words in the assistant message at a place."""
    messages: list[dict[str, Any]] = [dict(message) for message in trajectory.messages]
    messages[place]["content"] = text
    return Trajectory(messages=messages)


def eight(run: Run, place: int = 9, text: str = "Let me try a different approach.") -> Trajectory:
    """Eight runs of a script; result k stands at 2k + 2, the assistant speaks at `place`."""
    return saying(run(*((f"python try{n}.py", LONG) for n in range(8))), place, text)


def test_what_was_tried_before_the_turn_goes_but_its_last_result(run: Run) -> None:
    trajectory = eight(run)
    edits = PivotTrim().propose(trajectory)
    assert [(edit.start, edit.reason) for edit in edits] == [(n, "abandoned") for n in (2, 4, 6)]
    assert edits[0].replacement[0]["content"] == (
        '[Earlier output removed: abandoned, then: "a different approach"]'
    )
    assert PivotTrim().propose(trajectory.edited(edits)) == []


@pytest.mark.parametrize(
    ("options", "edited"),
    [({"reach": 1}, [6]), ({"after": 5}, []), ({"after": 1, "reach": 2}, [4, 6])],
)
def test_how_far_and_how_late(
    run: Run, places: Places, options: dict[str, int], edited: list[int]
) -> None:
    assert places(PivotTrim(**options), eight(run)) == edited


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("I'll start over.", True),
        ("Let's start from scratch: first", True),
        ("That failed. Another approach is to patch it.", True),
        ("I need a completely different approach", True),
        ("The function is not working", False),
        ("The approach works", False),
        ("start over", False),
        ("", False),
    ],
)
def test_what_counts_as_saying_so(run: Run, places: Places, text: str, turns: bool) -> None:
    assert bool(places(PivotTrim(), eight(run, text=text))) is turns


def test_files_it_has_seen_stay_and_failed_reads_go(run: Run, places: Places) -> None:
    calls = [
        ("cat /r/a.py", LONG),
        ("cat /r/b.py", "cat: no such file\n" * 20, 1),
        ("python t.py", LONG),
        ("python t.py", LONG),
        *((f"ls {n}", "x") for n in range(4)),
    ]
    trajectory = saying(run(*calls), 9, "Let me try a different approach.")
    assert places(PivotTrim(), trajectory) == [4, 6]


def test_it_reaches_no_further_than_the_turn_before_or_the_user(run: Run, places: Places) -> None:
    twice = saying(eight(run, place=5), 9, "Yet another approach:")
    assert places(PivotTrim(), twice) == [2, 6]
    messages = list(eight(run).messages)
    messages.insert(5, {"role": "user", "content": "Go on."})
    assert places(PivotTrim(), Trajectory(messages=messages)) == [7]


def test_recorded_runs(trajectories_dir: Path) -> None:
    """OpenHands says so now and then; what it had read of files stays."""
    edited = 0
    for run in read(trajectories_dir / "trajectories" / "openhands_llm_completions.jsonl.gz"):
        trajectory = run.trajectory()
        edits = PivotTrim().propose(trajectory)
        edit_module.check(edits, trajectory.messages)
        edited += len(edits)
        view = trajectory.edited(edits)
        assert PivotTrim().propose(view) == []
        assert view.tool_results[-4:] == trajectory.tool_results[-4:]
    assert edited > 0
