"""Events of a streamed answer as the caller gets them: without recalls, with the turn's usage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leyline_agent.recall.tool import NAME
from leyline_agent.response import as_dict
from leyline_agent.wrapping.streams import DROPPED

__all__ = ["Cleaning"]


class Cleaning:
    """Cleans one event after the other. One for each stream.

    Args:
        delivery: cleans a chat completion's chunks; here it adds the usage of hidden calls.
    """

    def __init__(self, delivery: Callable[[Any], Any]) -> None:
        self._delivery = delivery
        self._hidden: set[int] = set()
        self._calls = 0
        self._start: dict[str, Any] = {}

    def __call__(self, event: Any) -> Any:
        """The event as the caller gets it, or DROPPED. Blocks behind a hidden one move up."""
        index = _get(event, "index")
        if _get(event, "type") == "message_start":
            self._start = _counts(_get(_get(event, "message"), "usage"))
        elif _get(event, "type") == "content_block_start":
            block = _get(event, "content_block")
            if _get(block, "name") == NAME:
                self._hidden.add(index)
            elif _get(block, "type") == "tool_use":
                self._calls += 1
        if index in self._hidden:
            return DROPPED
        if index is not None and self._hidden:
            _set(event, "index", index - sum(hidden < index for hidden in self._hidden))
        if _get(event, "type") == "message_delta":
            self._end(event)
        return event

    def _end(self, event: Any) -> None:
        delta = _get(event, "delta")
        if self._hidden and not self._calls and _get(delta, "stop_reason") == "tool_use":
            _set(delta, "stop_reason", "end_turn")
        usage = _get(event, "usage")
        own = {**self._start, **_counts(usage)}  # What it leaves out was told at the start.
        told = self._delivery({"choices": [], "usage": own})["usage"]
        for name, count in told.items():
            if usage is not None and count != own.get(name):
                _set(usage, name, count)


def _counts(usage: Any) -> dict[str, Any]:
    return {name: count for name, count in (as_dict(usage) or {}).items() if count is not None}


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else getattr(value, key, None)


def _set(value: Any, key: str, new: Any) -> None:
    if isinstance(value, dict):
        value[key] = new
    else:
        setattr(value, key, new)
