"""The tool `leyline_recall`: how it is declared, how it is called, what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from leyline_agent.message import Message, called, calls, text
from leyline_agent.recall.archive import REDACTED, Found
from leyline_agent.recall.exchange import NAME

__all__ = [
    "NAME",
    "UNANSWERED",
    "Asked",
    "asked",
    "answer",
    "clashes",
    "declared",
    "exhausted",
    "is_recall",
    "result",
    "unreadable",
    "with_notice",
    "without_recalls",
]

UNANSWERED = (
    "[leyline: the model asked again for an earlier output, and this time it was not answered. "
    "It did not say that it is done; let it go on.]"
)
"""What a reply says of which nothing else would be left: a loop takes silence for the end."""

_DESCRIPTION = (
    "Shows a tool output of this conversation again that was removed or shortened to save room. "
    f'A line in its place names the id: {NAME}("..."). Only ask for what you need now.'
)
_PARAMETERS = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "The id that the line names."},
        "start": {
            "type": "integer",
            "minimum": 0,
            "description": "For a long output: the character to begin at. Default 0.",
        },
    },
    "required": ["id"],
}


class Asked(NamedTuple):
    """What one call asks for.

    Attributes:
        call: the call as the model made it.
        id: of the output; "" where the arguments cannot be read.
        start: the character to begin at.
    """

    call: Mapping[str, Any]
    id: str
    start: int


def declared(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The tools with ours behind them, in the form of the others: OpenAI's or Anthropic's."""
    if any("input_schema" in tool for tool in tools):
        ours = {"name": NAME, "description": _DESCRIPTION, "input_schema": _PARAMETERS}
        return [*tools, ours]
    function = {"name": NAME, "description": _DESCRIPTION, "parameters": _PARAMETERS}
    return [*tools, {"type": "function", "function": function}]


def clashes(tools: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the user has a tool of this name."""
    functions = (tool.get("function") for tool in tools)
    named = [*tools, *(function for function in functions if isinstance(function, Mapping))]
    return any(tool.get("name") == NAME for tool in named)


def is_recall(call: Mapping[str, Any]) -> bool:
    """Whether a call is of this tool."""
    return bool(called(call)[0] == NAME)


def asked(message: Message) -> list[Asked]:
    """The calls of this tool in a reply."""
    return [_asked(call) for call in calls(message) if is_recall(call)]


def _asked(call: Mapping[str, Any]) -> Asked:
    _, arguments = called(call)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return Asked(call, "", 0)
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("id"), str):
        return Asked(call, "", 0)
    start = arguments.get("start", 0)
    return Asked(call, arguments["id"].strip(), max(start, 0) if isinstance(start, int) else 0)


def without_recalls(message: Message) -> Message:
    """A reply without its calls of this tool; UNANSWERED, where no call is left."""
    left = [call for call in calls(message) if not is_recall(call)]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    if left:
        return {**rest, "tool_calls": left}
    return {**rest, "content": with_notice(rest.get("content"))}


def with_notice(content: Any) -> Any:
    """The content of a reply, UNANSWERED behind it."""
    if isinstance(content, list):
        return [*content, {"type": "text", "text": UNANSWERED}]
    return f"{content}\n{UNANSWERED}" if content else UNANSWERED


def result(call: Mapping[str, Any], content: Any) -> Message:
    """The message that answers a call."""
    answered: Message = {"role": "tool", "content": content}
    if call.get("id"):
        answered["tool_call_id"] = call["id"]
    return answered


def answer(found: Found | None, wanted: Asked, max_chars: int) -> Any:
    """The content that answers a call: the output, a part of it, or why there is none."""
    if not wanted.id:
        return (
            f'{NAME} takes {{"id": "..."}}, an id from a line that names the tool; these arguments '
            "cannot be read. Nothing was shown"
        )
    if found is None:
        return f"there is no output {wanted.id!r}; an id stands in the line that names {NAME}"
    if found.gone == REDACTED:
        return f"the output {wanted.id} was removed for good"
    if found.gone:
        return f"the output {wanted.id} is no longer kept; run its tool again if you need it"
    whole = text({"content": found.content})
    if len(whole) <= max_chars and not wanted.start:
        return found.content
    end = wanted.start + max_chars
    part = whole[wanted.start : end]
    more = f'; {NAME}("{wanted.id}", start={end}) shows more' if end < len(whole) else ""
    shown = f"characters {wanted.start} to {wanted.start + len(part)} of {len(whole)}"
    return f"{part}\n[{shown}{more}]"


def exhausted(limit: int, *, again: bool) -> str:
    """The answer to a call that is one too many; `again` where this was said before."""
    if again:
        return (
            "nothing was shown: no recall is answered any more before you go on with the task. "
            "Call another tool now, or answer"
        )
    return (
        f"nothing was shown: {limit} recalls are allowed before you answer or call another tool. "
        "Go on with what you have"
    )


def unreadable(id: str) -> str:
    """The answer where the archive fails."""
    return f"the output {id} cannot be read from the archive now; run its tool again if you need it"
