from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.errors import PolicyError
from leyline_agent.policy import parse
from leyline_agent.signals import is_stub
from leyline_agent.trajectory import Trajectory
from leyline_policies.keep_last import KeepLast

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]


@pytest.fixture
def five(run: Run) -> Trajectory:
    """Five results of 400 characters, at 2, 4, 6, 8 and 10."""
    return run(*((f"step {n}", "x" * 348) for n in range(5)))


@pytest.mark.parametrize(
    ("options", "edited"),
    [
        ({"n": 5}, []),
        ({"n": 9}, []),
        ({"n": 3}, [2, 4]),
        ({"n": 1}, [2, 4, 6, 8]),
        ({"n": 0}, [2, 4, 6, 8, 10]),
        ({"n": 3, "keep_first": 1}, [4]),
        ({"n": 3, "keep_first": 2}, []),
        ({"n": 0, "keep_first": 9}, []),
        ({"n": 3, "polling": 2}, [2, 4]),
        ({"n": 3, "polling": 3}, []),
        ({"n": 3, "exclude_tools": ("bash",)}, []),
        ({"n": 3, "exclude_tools": ("grep",)}, [2, 4]),
        ({"n": 3, "clear_at_least": 150}, [2, 4]),
        ({"n": 3, "clear_at_least": 250}, []),
        ({"n": 3, "placeholder": "x" * 400}, []),
    ],
)
def test_which_results_go(
    five: Trajectory, places: Places, options: dict[str, object], edited: list[int]
) -> None:
    assert places(KeepLast(**options), five) == edited


def test_the_placeholder_stands_in_the_result_s_place(five: Trajectory) -> None:
    edit = KeepLast(n=4).propose(five)[0]
    assert is_stub(edit.replacement[0]["content"])
    assert edit.replacement[0]["tool_call_id"] == "c0"
    own = KeepLast(n=4, placeholder="gone").propose(five)[0]
    assert own.replacement[0]["content"] == "gone"


def test_polling_batches_edits_as_the_run_grows(run: Run) -> None:
    policy, batches = KeepLast(n=2, polling=3), []
    trajectory = run(("step", "x" * 400))
    for _ in range(9):
        edits = policy.propose(trajectory)
        batches.append(len(edits))
        longer = run(*(("step", "x" * 400) for _ in range(len(trajectory.tool_results) + 1)))
        trajectory = trajectory.edited(edits).extended(longer.messages[-2:])
    assert batches == [0, 0, 0, 0, 3, 0, 0, 3, 0]


def test_edited_results_are_not_due_again(five: Trajectory, places: Places) -> None:
    policy = KeepLast(n=1, placeholder="gone")
    view = five.edited(policy.propose(five))
    assert places(policy, view) == []
    assert places(KeepLast(n=1), view) == []


def test_listed_tools_are_parsed_from_text() -> None:
    assert parse("keep_last:exclude_tools=a|b") == KeepLast(exclude_tools=("a", "b"))
    assert parse("keep_last:exclude_tools=a") == KeepLast(exclude_tools=("a",))


@pytest.mark.parametrize(
    "options", [{"n": -1}, {"polling": 0}, {"keep_first": -1}, {"clear_at_least": -1}, {"m": 3}]
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        KeepLast(**options)
