"""Stubs in the place of results, each with what to say about it; and how to name a call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from leyline_agent.edit import Edit
from leyline_agent.signals import stub, untouched
from leyline_agent.signals.invocation import invocation
from leyline_agent.trajectory import ToolResult, Trajectory

__all__ = ["Gone", "label", "stubbed"]

_LABEL_CHARS = 80


class Gone(NamedTuple):
    """A result to be removed.

    Attributes:
        result: the result, in the view.
        why: what its stub says.
        reason: one word for receipts.
    """

    result: ToolResult
    why: str
    reason: str


def stubbed(trajectory: Trajectory, found: Iterable[Gone]) -> Iterator[Edit]:
    """An edit for each result that may be edited and is longer than its stub."""
    may_edit = {result.index for result in untouched(trajectory)}
    for gone in found:
        line = stub(gone.why)
        if gone.result.index in may_edit and len(line) < len(gone.result.content):
            yield gone.result.replace(line, reason=gone.reason)


def label(result: ToolResult) -> str:
    """The call behind a result in at most 80 characters: its command, or its name and arguments."""
    if result.call is None:
        return "an unknown call"
    called = invocation(result.call)
    command = called.arguments.get("command")
    if isinstance(command, str) and len(called.arguments) == 1:
        text = command
    else:
        text = f"{called.name} {json.dumps(called.arguments, ensure_ascii=False, default=str)}"
    line = " ".join(text.split())
    return f"`{line if len(line) <= _LABEL_CHARS - 2 else line[: _LABEL_CHARS - 5] + '...'}`"
