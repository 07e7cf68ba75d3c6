"""Small runs to look for signals in."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from leyline_agent.trajectory import ToolResult, Trajectory

Call = tuple[str, dict[str, Any], str]


def _messages(calls: Sequence[Call]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    for number, (name, arguments, output) in enumerate(calls):
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": f"c{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": output})
    return messages


@pytest.fixture
def run() -> Callable[..., Trajectory]:
    """A run of tool calls: (tool, arguments, output) each; result k stands at index 2k + 2."""
    return lambda *calls: Trajectory(messages=_messages(calls))


@pytest.fixture
def shell() -> Callable[..., Trajectory]:
    """A run of mini-swe-agent's bash: each call (command, output[, exit code])."""

    def make(*calls: tuple[Any, ...]) -> Trajectory:
        told: list[Call] = []
        for command, text, *code in calls:
            status = code[0] if code else 0
            output = f"<returncode>{status}</returncode>\n<output>\n{text}\n</output>"
            told.append(("bash", {"command": command}, output))
        return Trajectory(messages=_messages(told))

    return make


@pytest.fixture
def result(run: Callable[..., Trajectory]) -> Callable[..., ToolResult]:
    """One tool result, with fields of its message."""

    def make(content: str, name: str = "tool", arguments: Any = None, **fields: Any) -> ToolResult:
        made = run((name, arguments or {}, content)).tool_results[0]
        made.message.update(fields)
        return made

    return make
