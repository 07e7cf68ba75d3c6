from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from leyline_agent import edit as edit_module
from leyline_agent.errors import PolicyError
from leyline_agent.trajectory import Trajectory
from leyline_policies.clear_tool_uses import ClearToolUses

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]


@pytest.fixture
def six(run: Run) -> Trajectory:
    """Six results of 400 characters, about 100 tokens each, at 2, 4, ... 12."""
    return run(*((f"step {n}", "x" * 348) for n in range(6)))


def test_anthropic_s_defaults() -> None:
    policy = ClearToolUses()
    assert (policy.trigger, policy.keep, policy.clear_at_least) == (100_000, 3, 0)
    assert (policy.exclude_tools, policy.clear_tool_inputs) == ((), False)


@pytest.mark.parametrize(
    ("options", "edited"),
    [
        ({"trigger": 100}, [2, 4, 6]),
        ({"trigger": 10_000}, []),
        ({"trigger": 100, "keep": 5}, [2]),
        ({"trigger": 100, "keep": 0}, [2, 4, 6, 8, 10, 12]),
        ({"trigger": 100, "keep": 9}, []),
        ({"trigger": 100, "exclude_tools": ("bash",)}, []),
        # Each result frees about 90 tokens.
        ({"trigger": 100, "clear_at_least": 200}, [2, 4, 6]),
        ({"trigger": 100, "clear_at_least": 300}, []),
        ({"trigger": 600, "clear_at_least": 100, "at_least": "batch"}, [2, 4]),
        ({"trigger": 600, "clear_at_least": 300, "at_least": "batch"}, [2, 4, 6]),
        ({"trigger": 600, "at_least": "batch"}, [2]),
        ({"trigger": 100, "clear_at_least": 100, "at_least": "batch"}, [2, 4, 6]),
    ],
)
def test_which_results_go(
    six: Trajectory, places: Places, options: dict[str, object], edited: list[int]
) -> None:
    assert places(ClearToolUses(**options), six) == edited


def test_the_trigger_counts_in_the_engine_s_tokens(six: Trajectory, places: Places) -> None:
    policy = ClearToolUses(trigger=six.tokens())
    assert places(policy, six) == []
    assert places(policy, six.configured(chars_per_token=2.0)) == [2, 4, 6]


def test_inputs_are_cleared_with_their_results(run: Run) -> None:
    trajectory = run(*(("echo " + "y" * 200, "x" * 348) for _ in range(3)))
    edits = ClearToolUses(trigger=10, keep=1, clear_tool_inputs=True).propose(trajectory)
    edit_module.check(edits, trajectory.messages)
    view = trajectory.edited(edits)
    assert sorted(edit.start for edit in edits) == [1, 2, 3, 4]
    assert [call.arguments == {} for call in view.tool_calls] == [True, True, False]
    assert [call.id for call in view.tool_calls] == ["c0", "c1", "c2"]
    assert [call.name for call in view.tool_calls] == ["bash"] * 3
    assert ClearToolUses(trigger=10, keep=1, clear_tool_inputs=True).propose(view) == []


def test_a_message_s_inputs_stay_while_one_of_its_results_does() -> None:
    calls = [
        {"id": i, "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": i})}}
        for i in ("p", "q")
    ]
    messages = [
        {"role": "user", "content": "task"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": i, "content": "x" * 400} for i in ("p", "q")),
    ]
    trajectory = Trajectory(messages=messages)
    policy = ClearToolUses(trigger=10, keep=1, clear_tool_inputs=True)
    first = policy.propose(trajectory)
    assert [edit.start for edit in first] == [2]
    view = trajectory.edited(first)
    rest = ClearToolUses(trigger=10, keep=0, clear_tool_inputs=True).propose(view)
    assert [edit.start for edit in rest] == [3, 1]
    assert all(call.arguments == {} for call in view.edited(rest).tool_calls)


@pytest.mark.parametrize("options", [{"keep": -1}, {"trigger": -1}, {"at_least": "some"}])
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        ClearToolUses(**options)
