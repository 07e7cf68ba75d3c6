"""What of a request's messages, tools and edits this engine cannot take, told by place.

A model of text is shown text alone: what would be left out, misread or answered without a remark is
refused instead. Recorded runs are replayed as they are, so these checks stand at the doors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leyline_agent.adapter import WireEdit
from leyline_agent.message import Message
from leyline_agent.serving.explain import Place

__all__ = ["ROLES", "wrong_edits", "wrong_messages", "wrong_tools"]

ROLES = ("system", "developer", "user", "assistant", "tool", "function")

_Found = Iterator[tuple[Place, str]]


def wrong_messages(messages: Sequence[Message]) -> _Found:
    """Places below `messages`, and what is wrong there."""
    called: set[str] = set()  # ids of calls so far; names of those in the old form
    for index, message in enumerate(messages):
        if message.get("role") not in ROLES:
            yield (index, "role"), _wrong_role(message)
        found = [*_wrong_content(message.get("content")), *_wrong_calls(message)]
        for place, words in found:
            yield (index, *place), words
        if not found:
            called.update(_calls(message))
        if message.get("role") in ("tool", "function"):
            yield from (((index, *place), words) for place, words in _orphan(message, called))


def _wrong_role(message: Message) -> str:
    roles = ", ".join(ROLES)
    if "role" not in message:
        return f"is missing; it is one of {roles}"
    return f"{message['role']!r} is no role; the roles are {roles}"


def _wrong_content(content: Any) -> _Found:
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list):
        yield ("content",), "expected a string or an array of text parts"
        return
    for index, part in enumerate(content):
        if isinstance(part, str):
            continue
        if not isinstance(part, dict):
            yield ("content", index), "expected an object with type 'text'"
        elif part.get("type") != "text":
            yield (
                ("content", index),
                f"a part of type {part.get('type')!r} cannot be shown to this model, which reads "
                "text only; send parts of type 'text'",
            )
        elif not isinstance(part.get("text"), str):
            yield ("content", index, "text"), "expected a string"


def _wrong_calls(message: Message) -> _Found:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        yield ("tool_calls",), "expected an array"
        return
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        for place, words in _wrong_function(function):
            yield ("tool_calls", index, "function", *place), words
    if (old := message.get("function_call")) is not None:
        for place, words in _wrong_function(old):
            yield ("function_call", *place), words


def _wrong_function(function: Any) -> _Found:
    if not isinstance(function, dict):
        yield (), "expected an object with name and arguments"
        return
    if not isinstance(function.get("name"), str) or not function["name"]:
        yield ("name",), "expected the name of a function"
    if not isinstance(function.get("arguments"), str | dict | None):
        yield ("arguments",), "expected JSON in a string"


def _calls(message: Message) -> Iterator[str]:
    for call in message.get("tool_calls") or ():
        yield str(call.get("id"))
    if old := message.get("function_call"):
        yield old["name"]


def _orphan(message: Message, called: set[str]) -> _Found:
    """A result must have its call before it; a call need not have its result."""
    field = "tool_call_id" if message["role"] == "tool" else "name"
    known = message.get(field)
    if not isinstance(known, str):
        yield (field,), f"is missing; a message of role {message['role']!r} says whose result it is"
    elif known not in called:
        yield (
            (field,),
            f"no message before this one makes the call {known!r}, so its result answers nothing; "
            "send the assistant message with the call too, or drop this one",
        )


def wrong_tools(tools: Sequence[Mapping[str, Any]]) -> _Found:
    """Places below `tools`, and what is wrong there."""
    for index, tool in enumerate(tools):
        if tool.get("type", "function") != "function":
            yield (index, "type"), f"{tool['type']!r} is not supported; declare functions"
            continue
        function = tool.get("function") or tool
        if not isinstance(function, dict):
            yield (index, "function"), "expected an object with name and parameters"
        elif not isinstance(function.get("name"), str) or not function["name"]:
            yield (index, "function", "name"), "expected the name of a function"


def wrong_edits(edits: Sequence[WireEdit], num_messages: int) -> _Found:
    """Places below `edits`, and why no view of whatever length becomes the request's messages.

    Whether the engine has seen the messages an edit replaced is another matter: the first request
    of a resumed session may edit what no engine holds.
    """
    cursor = at = 0  # in the view before the edits, in the request's messages
    before: WireEdit | None = None
    for index, edit in sorted(enumerate(edits), key=lambda each: each[1].messages):
        start, end = edit.messages
        span = f"[{start}, {end})"
        if not 0 <= start <= end:
            yield (index, "messages"), f"{span} is no half-open range of messages"
            return
        if before is not None and (start < cursor or edit.messages == before.messages):
            yield (index, "messages"), f"{span} overlaps another edit of {list(before.messages)}"
            return
        at += start - cursor
        if at > num_messages:
            last = cursor + num_messages - (at - (start - cursor))
            yield (
                (index, "messages"),
                f"{span} begins past the end of the view; with the {num_messages} messages of this "
                f"request it had no more than {last} before this edit",
            )
            return
        if at + edit.count > num_messages:
            yield (
                (index, "count"),
                f"the edit of {span} puts {edit.count} messages at {at}, where this request has "
                f"{num_messages - at} left",
            )
            return
        at += edit.count
        cursor, before = end, edit
