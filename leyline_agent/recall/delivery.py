"""A response as the harness gets it: without recalls, its usage that of all calls of the turn.

Dictionaries are copied, a library's objects are changed: they were made for this caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leyline_agent import response as reading
from leyline_agent.message import called
from leyline_agent.recall.tool import NAME, UNANSWERED, asked, with_notice, without_recalls

__all__ = ["Delivery", "delivered"]


def delivered(response: Any, usages: Sequence[Mapping[str, Any]]) -> Any:
    """The response without calls of the recall tool, and with `usages` added to its own."""
    message = reading.reply(response)
    if message is not None and asked(message):
        response = _without_recalls(response)
    return _counted(response, usages)


def _without_recalls(response: Any) -> Any:
    if isinstance(response, Mapping):
        if response.get("role") == "assistant":
            return _like(response, without_recalls(dict(response)))
        first, *others = response["choices"]
        told = _like(first["message"], without_recalls(dict(first["message"])))
        cleaned = {**first, "message": told}
        if not told.get("tool_calls") and first.get("finish_reason") == "tool_calls":
            cleaned["finish_reason"] = "stop"
        return _like(response, {**response, "choices": [_like(first, cleaned), *others]})
    choice: Any = response.choices[0] if hasattr(response, "choices") else None
    message: Any = response if choice is None else choice.message
    left = [call for call in message.tool_calls if called(reading.as_dict(call) or {})[0] != NAME]
    message.tool_calls = left or None
    if not left:
        message.content = with_notice(message.content)
        if choice is not None and choice.finish_reason == "tool_calls":
            choice.finish_reason = "stop"
    return response


def _counted(response: Any, usages: Sequence[Mapping[str, Any]]) -> Any:
    usage = _get(response, "usage")
    if usage is None or not usages:
        return response
    for spent in usages:
        usage = _sum(usage, spent)
    if isinstance(response, Mapping):
        return _like(response, {**response, "usage": usage})
    response.usage = usage
    return response


def _sum(usage: Any, spent: Mapping[str, Any]) -> Any:
    """`usage` with the counts of `spent` added, those of its parts included."""
    more: dict[str, Any] = {}
    for key, value in spent.items():
        held = _get(usage, key)
        if isinstance(value, Mapping):
            more[key] = value if held is None else _sum(held, value)
        elif isinstance(value, int) and not isinstance(value, bool):
            more[key] = (held if isinstance(held, int) else 0) + value
    if isinstance(usage, Mapping):
        return _like(usage, {**usage, **more})
    for key, value in more.items():
        if _get(usage, key) is not None:
            setattr(usage, key, value)
    return usage


class Delivery:
    """Chunks of a streamed reply as the harness gets them. One for each stream.

    Args:
        usages: the usage of the turn's hidden calls, filled while the stream runs.
    """

    def __init__(self, usages: Sequence[Mapping[str, Any]]) -> None:
        self._usages = usages
        self._places: dict[int, int | None] = {}
        self._has_dropped = False
        self._has_text = False

    def __call__(self, chunk: Any) -> Any:
        """A chunk with no part of a recall in it; calls behind one move up.

        Where no call is left, the chunk that ends the reply says so, as `delivered` does.
        """
        for choice in _get(chunk, "choices") or ():
            if _get(choice, "index") in (0, None):
                self._clean(choice)
        if self._usages and _get(chunk, "usage") is not None:
            return _counted(chunk, self._usages)
        return chunk

    def _clean(self, choice: Any) -> None:
        delta = _get(choice, "delta")
        pieces = _get(delta, "tool_calls") if delta is not None else None
        if pieces:
            left = [piece for piece in pieces if self._stays(piece)]
            if len(left) < len(pieces):
                _set(delta, "tool_calls", left or None)
        if delta is not None:
            self._has_text = self._has_text or bool(_get(delta, "content"))
        only_ours = self._has_dropped and all(at is None for at in self._places.values())
        if only_ours and _get(choice, "finish_reason"):
            self._end(choice, delta)

    def _end(self, choice: Any, delta: Any) -> None:
        if _get(choice, "finish_reason") == "tool_calls":
            _set(choice, "finish_reason", "stop")
        if delta is not None:
            notice = f"\n{UNANSWERED}" if self._has_text else UNANSWERED
            _set(delta, "content", f"{_get(delta, 'content') or ''}{notice}")
        self._has_dropped = False  # Said once.

    def _stays(self, piece: Any) -> bool:
        """Whether a piece of a call is of another tool; it gets its new place."""
        index = _get(piece, "index") or 0
        if index not in self._places:
            ours = _get(_get(piece, "function"), "name") == NAME
            taken = sum(at is not None for at in self._places.values())
            self._places[index] = None if ours else taken
            self._has_dropped = self._has_dropped or ours
        place = self._places[index]
        if place is not None and place != index:
            _set(piece, "index", place)
        return place is not None


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)


def _set(value: Any, key: str, new: Any) -> None:
    if isinstance(value, dict):
        value[key] = new
    else:
        setattr(value, key, new)


def _like(original: Any, changed: dict[str, Any]) -> Any:
    """`changed` as the class of dictionary that `original` is."""
    kind = type(original)
    return kind(changed) if kind is not dict and issubclass(kind, dict) else changed
