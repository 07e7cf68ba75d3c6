from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.trajectory import Trajectory
from leyline_policies.stubbed import Gone, label, stubbed

Run = Callable[..., Trajectory]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("ls", "`ls`"),
        ("cat <<E\n  x\nE", "`cat <<E x E`"),
        ("y" * 100, "`" + "y" * 75 + "...`"),
        ("y" * 78, "`" + "y" * 78 + "`"),
    ],
)
def test_a_command_on_one_line(run: Run, command: str, shown: str) -> None:
    assert label(run((command, "")).tool_results[0]) == shown
    assert len(shown) <= 80


def test_other_calls_by_name_and_arguments() -> None:
    function = {"name": "view", "arguments": '{"path": "a.py"}'}
    messages = [
        {"role": "assistant", "tool_calls": [{"id": "a", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": "x"},
        {"role": "tool", "tool_call_id": "b", "content": "x"},
    ]
    one, orphan = Trajectory(messages=messages).tool_results
    assert label(one) == '`view {"path": "a.py"}`'
    assert label(orphan) == "an unknown call"


def test_what_was_edited_pinned_or_short_stays(run: Run) -> None:
    trajectory = run(*(("cat x", text) for text in ("a" * 99, "b" * 99, "c" * 99, "")))
    view = trajectory.edited([trajectory.tool_results[0].replace("shortened" * 20)])
    view = view.configured(original=trajectory, pinned=frozenset({4}))
    gone = (Gone(result, "for a reason that is longer than no output", "test") for result in
            view.tool_results)  # fmt: skip
    assert [(edit.start, edit.reason) for edit in stubbed(view, gone)] == [(6, "test")]
