"""The results of a view as the tools gave them, whatever policies have made of them since."""

from __future__ import annotations

from collections import Counter
from itertools import takewhile

from leyline_agent.signals.memory import remembered
from leyline_agent.signals.stub import is_capped, is_cut, is_stub
from leyline_agent.trajectory import ToolResult, Trajectory

__all__ = ["originals", "unsent", "untouched"]


def originals(trajectory: Trajectory) -> tuple[ToolResult, ...]:
    """For each of `trajectory.tool_results` the same result in the unedited history.

    Results are matched by place while nothing was dropped or inserted, else by a call id that
    occurs once; one that cannot be matched stands for itself, as what a recall shows does.
    """
    return remembered(trajectory, "originals", lambda: _originals(trajectory))


def _originals(trajectory: Trajectory) -> tuple[ToolResult, ...]:
    history = trajectory.original
    if history is trajectory:
        return trajectory.tool_results
    if len(history.messages) == len(trajectory.messages):
        by_place = {result.index: result for result in history.tool_results}
        found = tuple(by_place.get(result.index, result) for result in trajectory.tool_results)
        if list(map(_call_id, found)) == list(map(_call_id, trajectory.tool_results)):
            return found  # Else as many messages were dropped as were inserted.
    by_id = {_call_id(result): result for result in history.tool_results}
    times = Counter(map(_call_id, history.tool_results))
    return tuple(
        by_id[_call_id(result)] if _call_id(result) and times[_call_id(result)] == 1 else result
        for result in trajectory.tool_results
    )


def untouched(trajectory: Trajectory) -> tuple[ToolResult, ...]:
    """The results that a policy may edit: not pinned, the text still as it was first sent.

    A stub, or a text out of which something was cut later, has been edited already.
    """
    return remembered(trajectory, "untouched", lambda: _untouched(trajectory))


def _untouched(trajectory: Trajectory) -> tuple[ToolResult, ...]:
    return tuple(
        result
        for result, original in zip(trajectory.tool_results, originals(trajectory), strict=True)
        if result.index not in trajectory.pinned
        and (result.content == original.content or is_capped(result.content))
        and not is_stub(result.content)
        and not is_cut(result.content)
    )


def unsent(trajectory: Trajectory) -> tuple[ToolResult, ...]:
    """The results that no call of the model has been sent yet: those behind its last reply."""
    behind = takewhile(lambda m: m.get("role") != "assistant", reversed(trajectory.messages))
    first = len(trajectory.messages) - sum(1 for _ in behind)
    new = takewhile(lambda result: result.index >= first, reversed(trajectory.tool_results))
    return tuple(new)[::-1]


def _call_id(result: ToolResult) -> str:
    return result.call.id if result.call else ""
