"""Oddities: messages that a client may send and policies can make little or nothing of.

They go out as they are; what they are, and what policies do not see in them, is told once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leyline_agent.message import Message, called, calls

if TYPE_CHECKING:
    from leyline_agent.trajectory import Trajectory

__all__ = ["Oddity", "oddities"]

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_PARTS = frozenset(
    "text input_text output_text refusal thinking redacted_thinking reasoning image image_url "
    "input_image input_audio audio audio_url video video_url file input_file document".split()
)


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something odd about one message.

    Attributes:
        index: its place in the history.
        kind: one word for it.
        detail: what it is, and what policies make of it.
    """

    index: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"message {self.index}: {self.kind}: {self.detail}"


def oddities(history: Trajectory, first: int = 0) -> Iterator[Oddity]:
    """What is odd about messages [first, end) of a history, and about calls they left unanswered.

    UnknownRole, UnknownContent and UnknownCall are of a form not known here; an OrphanResult
    answers no call, an UnansweredCall has no result though the conversation went on.
    """
    for index in range(first, len(history.messages)):
        for kind, detail in _of(history.messages[index]):
            yield Oddity(index, kind, detail)
    results = {result.index: result.call for result in history.tool_results}
    for index in range(first, len(history.messages)):
        if index in results and results[index] is None:
            found = history.messages[index].get("tool_call_id")
            detail = f"its id {found!r} is no open call's: policies do not know its tool"
            yield Oddity(index, "OrphanResult", detail)
    yield from _unanswered(history, first, results)


def _unanswered(history: Trajectory, first: int, results: Mapping[int, Any]) -> Iterator[Oddity]:
    for call in reversed(history.tool_calls):
        end = call.index + 1
        while end in results:
            end += 1
        if end < first - 1:
            return  # Over before; what stands at first - 1 may be the reply, which is new as well.
        answered = any(results[index] == call for index in range(call.index + 1, end))
        if not answered and end < len(history.messages) and history.observations == "tool":
            detail = f"its call {call.id!r} of {call.name!r} has no result behind it"
            yield Oddity(call.index, "UnansweredCall", detail)


def _of(message: Message) -> Iterator[tuple[str, str]]:
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        yield "UnknownRole", f"the role is {role!r}: policies take it for neither call nor result"
    unknown = _unknown_parts(content)
    if unknown:
        yield "UnknownContent", f"{unknown}: policies see its text at most, no call or result in it"
    found = message.get("tool_calls") or ()
    made = calls(message)
    if found and (not isinstance(found, list | tuple) or len(made) < len(found)):
        yield (
            "UnknownCall",
            "tool_calls is no list of dictionaries: policies do not see these calls",
        )
    elif any(not called(call)[0] for call in made):
        yield "UnknownCall", "a tool call names no function: policies do not know its tool"


def _unknown_parts(content: Any) -> str:
    """What is unknown about a content; "" when nothing is."""
    if content is None or isinstance(content, str):
        return ""
    if not isinstance(content, list | tuple):
        return f"the content is a {type(content).__name__}"
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if not isinstance(part, str) and (not isinstance(kind, str) or kind not in _PARTS):
            return f"a part of the content is of type {kind!r}"
    return ""
