from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.errors import PolicyError
from leyline_agent.signals import failures, is_stub
from leyline_agent.trajectory import Trajectory
from leyline_policies.drop_failed_calls import DropFailedCalls

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

BOOM = "Traceback (most recent call last):\n" + "  File x\n" * 40 + "ValueError: no such thing\n"


def test_one_line_of_what_failed_stays(run: Run) -> None:
    trajectory = run(("python a.py", BOOM, 1), ("python b.py", BOOM, 1))
    (edit,) = DropFailedCalls().propose(trajectory)
    assert (edit.start, edit.reason) == (2, "failed")
    assert edit.replacement[0]["content"] == (
        "[Earlier output removed: failed, exit code 1: ValueError: no such thing]"
    )


def test_the_most_recent_failure_stays_whole(run: Run, places: Places) -> None:
    trajectory = run(("python a.py", BOOM, 1), *(("ls", "x") for _ in range(9)))
    assert places(DropFailedCalls(), trajectory) == []


@pytest.mark.parametrize(("after", "edited"), [(1, [2, 4]), (3, [2, 4]), (4, [2]), (5, [])])
def test_it_waits_for_later_results(
    run: Run, places: Places, after: int, edited: list[int]
) -> None:
    failing = ("python a.py", BOOM, 1)
    trajectory = run(failing, failing, ("ls", "x"), failing, ("ls", "x"))
    assert places(DropFailedCalls(after=after), trajectory) == edited


def test_successes_and_answers_stay(run: Run, places: Places) -> None:
    trajectory = run(
        ("cat log", BOOM), ("grep x log", "", 1), ("python a.py", BOOM, 1), ("python a.py", BOOM, 1)
    )
    assert places(DropFailedCalls(), trajectory) == [6]


def test_short_failures_stay(run: Run, places: Places) -> None:
    assert places(DropFailedCalls(), run(("x", "", 1), ("x", "", 1))) == []


def test_a_dropped_failure_is_still_a_failure(run: Run, places: Places) -> None:
    trajectory = run(("python a.py", BOOM, 1), ("python b.py", BOOM, 1), ("ls", "x"))
    view = trajectory.edited(DropFailedCalls().propose(trajectory))
    assert [f.index for f in failures(view)] == [2, 4]
    assert is_stub(view.tool_results[0].content)
    assert places(DropFailedCalls(), view) == []


def test_it_cannot_drop_what_was_never_seen() -> None:
    with pytest.raises(PolicyError):
        DropFailedCalls(after=0)
