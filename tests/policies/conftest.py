"""Small runs for policies to edit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from leyline_agent.trajectory import Trajectory


@pytest.fixture
def run() -> Callable[..., Trajectory]:
    """A run of shell calls: (command, output[, exit code]) each; result k stands at 2k + 2."""

    def make(*calls: tuple[Any, ...], tool: str = "bash") -> Trajectory:
        messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
        for number, (command, text, *code) in enumerate(calls):
            function = {"name": tool, "arguments": json.dumps({"command": command})}
            call = {"id": f"c{number}", "type": "function", "function": function}
            output = f"<returncode>{code[0] if code else 0}</returncode>\n<output>\n{text}</output>"
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": output})
        return Trajectory(messages=messages)

    return make


@pytest.fixture
def places() -> Callable[..., list[int]]:
    """Where a policy edits a trajectory."""
    return lambda policy, trajectory: [edit.start for edit in policy.propose(trajectory)]
