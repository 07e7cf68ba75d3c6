"""pydantic-ai's messages as chat messages and back.

A request of theirs holds what are several messages of a chat: a prompt, each tool's result. So
they are taken apart into units, one a chat message, and put together again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from leyline_agent.message import Message, called, calls, text

__all__ = ["Unit", "UnitCodec", "edited_response", "instructed", "joined", "read_response", "split"]

_FILES = ("binary", "document-url", "uploaded-file")


class Unit(NamedTuple):
    """What is one chat message: a response, or one part of a request."""

    message: ModelMessage
    part: Any = None


def split(messages: Iterable[ModelMessage]) -> list[Unit]:
    """A unit for each part of a request and for each response."""
    units: list[Unit] = []
    for message in messages:
        parts = message.parts if isinstance(message, ModelRequest) else ()
        units.extend([Unit(message, part) for part in parts] or [Unit(message)])
    return units


def instructed(messages: Sequence[ModelMessage]) -> list[Unit]:
    """The newest instructions as a system prompt, for an engine that is sent nothing else."""
    requests = [message for message in messages if isinstance(message, ModelRequest)]
    found = next((one.instructions for one in reversed(requests) if one.instructions), None)
    part = SystemPromptPart(found or "")
    return [Unit(ModelRequest([part]), part)] if found else []


def joined(units: Iterable[Unit]) -> list[ModelMessage]:
    """The messages of units; a request whose parts are all there is the very same object."""
    result: list[ModelMessage] = []
    for _, group in groupby(units, key=lambda unit: id(unit.message)):
        found = list(group)
        message, parts = found[0].message, [unit.part for unit in found if unit.part is not None]
        whole = len(parts) == len(message.parts) and all(map(_same, parts, message.parts))
        if isinstance(message, ModelRequest) and not whole:
            message = replace(message, parts=parts)
        result.append(message)
    return result


def _same(one: Any, other: Any) -> bool:
    return one is other


class UnitCodec:
    """Reads a unit as a chat message and writes it back."""

    def read(self, native: Unit) -> Message:
        """The chat message of a unit."""
        if isinstance(native.message, ModelResponse):
            return read_response(native.message)
        return _read_part(native.part) if native.part else {"role": "user", "content": ""}

    def edited(self, native: Unit, message: Message) -> Unit:
        """A copy of the unit's part, or response, that says what a message says."""
        if isinstance(native.message, ModelResponse):
            return Unit(edited_response(native.message, message))
        return native._replace(part=replace(native.part, content=text(message)))

    def made(self, message: Message) -> Unit:
        """A unit of its own for a message."""
        role, content = message["role"], text(message)
        if role == "assistant":
            said = [TextPart(content)] if content else []
            return Unit(ModelResponse([*said, *map(_call_part, calls(message))]))
        if role == "tool":
            id = str(message["tool_call_id"])
            part: Any = ToolReturnPart(str(message.get("name") or ""), content, id)
        else:
            part = (SystemPromptPart if role == "system" else UserPromptPart)(content)
        return Unit(ModelRequest([part]), part)


def _read_part(part: Any) -> Message:
    kind = part.part_kind
    if kind == "system-prompt":
        return {"role": "system", "content": part.content}
    if kind == "user-prompt":
        content = part.content
        return {"role": "user", "content": content if isinstance(content, str) else _parts(content)}
    if kind == "tool-return" or (kind == "retry-prompt" and part.tool_name):
        failed = kind == "retry-prompt" or part.outcome in ("failed", "retried")
        said = part.model_response() if kind == "retry-prompt" else part.model_response_str()
        message = {"role": "tool", "tool_call_id": part.tool_call_id, "content": said}
        return {**message, "is_error": True} if failed else message
    if kind in ("retry-prompt", "retry-feedback"):
        return {"role": "user", "content": part.model_response()}
    return {"role": "user", "content": [{"type": kind, "value": repr(part)}]}


def _parts(content: Iterable[Any]) -> list[dict[str, Any]]:
    """Texts as such; of a file, what tells it from others."""
    return [
        {"type": "text", "text": one if isinstance(one, str) else one.content}
        if isinstance(one, str) or one.kind == "text-content"
        else {"type": _chat_kind(one.kind), "id": getattr(one, "identifier", None)}
        for one in content
        if isinstance(one, str) or one.kind != "cache-point"
    ]


def _chat_kind(kind: str) -> str:
    return "file" if kind in _FILES else kind.replace("-", "_")


def read_response(response: ModelResponse) -> Message:
    """The assistant's message: its texts and its calls of our tools."""
    said = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    made = [
        {
            "id": part.tool_call_id,
            "type": "function",
            "function": {"name": part.tool_name, "arguments": part.args_as_json_str()},
        }
        for part in response.parts
        if isinstance(part, ToolCallPart)
    ]
    message: Message = {"role": "assistant", "content": said}
    return {**message, "tool_calls": made} if made else message


def edited_response(response: ModelResponse, message: Message) -> ModelResponse:
    """The response with other text and arguments; what it thought stays."""
    arguments = {call.get("id"): called(call)[1] for call in calls(message)}
    said = text(message)
    parts: list[Any] = []
    for part in response.parts:
        if isinstance(part, TextPart):
            parts.extend([replace(part, content=said)] if said else [])
            said = ""
        elif not isinstance(part, ToolCallPart):
            parts.append(part)
        elif part.tool_call_id in arguments:
            given = arguments[part.tool_call_id]
            kept = part.args_as_json_str() == given
            parts.append(part if kept else replace(part, args=given))
    return replace(response, parts=[*([TextPart(said)] if said else []), *parts])


def _call_part(call: Any) -> ToolCallPart:
    name, arguments = called(call)
    return ToolCallPart(name, arguments, call.get("id"))
