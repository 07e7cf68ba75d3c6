from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.trajectory import Trajectory
from leyline_policies.cap_at_ingestion import CapAtIngestion
from leyline_policies.dedupe import Dedupe

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

LONG = "x = 1\n" * 100


def test_a_repetition_says_where_its_like_is(run: Run) -> None:
    trajectory = run(("cat a.py", LONG), ("ls", "x"), ("cat ./a.py", LONG))
    (edit,) = Dedupe().propose(trajectory)
    assert (edit.start, edit.reason) == (6, "duplicate")
    assert edit.replacement[0]["content"] == (
        "[Earlier output removed: the same as the output of `cat a.py` above]"
    )


@pytest.mark.parametrize(("keep", "edited"), [("first", [6, 8]), ("last", [6, 2])])
def test_one_copy_stays(run: Run, places: Places, keep: str, edited: list[int]) -> None:
    trajectory = run(("a", LONG), ("ls", "x"), ("b", LONG), ("c", LONG))
    policy = Dedupe(keep=keep)
    assert places(policy, trajectory) == edited
    view = trajectory.edited(policy.propose(trajectory))
    assert sum(LONG in result.content for result in view.tool_results) == 1
    assert policy.propose(view) == []


def test_a_copy_that_was_removed_is_no_copy(run: Run, places: Places) -> None:
    trajectory = run(("a", LONG), ("b", LONG))
    view = trajectory.edited([trajectory.tool_results[0].replace("gone")])
    assert places(Dedupe(), view) == []


def test_what_was_capped_is_a_copy_of_the_whole(run: Run, places: Places) -> None:
    first = run(("a", LONG))
    capped = first.edited(CapAtIngestion(max_chars=250).propose(first))
    view = capped.extended(run(("a", "x"), ("b", LONG)).messages[3:])
    assert places(Dedupe(), view) == [4]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 passed in 0.31s\n", "3 passed in 1.20s\n"),
        ("at 10:31:07 done\n", "at 10:44:59.123 done\n"),
        ("<object at 0x7f01>\n", "<object at 0x7fa9>\n"),
    ],
)
def test_near_overlooks_what_passes(run: Run, places: Places, one: str, other: str) -> None:
    trajectory = run(("pytest", LONG + one), ("pytest", LONG + other))
    assert places(Dedupe(), trajectory) == []
    (edit,) = Dedupe(near=True).propose(trajectory)
    assert "nearly the same as" in edit.replacement[0]["content"]


def test_near_is_not_blind_to_numbers(run: Run, places: Places) -> None:
    trajectory = run(("pytest", LONG + "3 passed"), ("pytest", LONG + "4 passed"))
    assert places(Dedupe(near=True), trajectory) == []


def test_short_outputs_stay(run: Run, places: Places) -> None:
    assert places(Dedupe(), run(("a", "y" * 100), ("b", "y" * 100))) == []
    assert places(Dedupe(min_chars=100), run(("a", "y" * 100), ("b", "y" * 100))) == [4]
