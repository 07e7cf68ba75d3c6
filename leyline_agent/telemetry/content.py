"""Messages as OpenTelemetry has them: a role and parts, as JSON text. For who asks for contents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from leyline_agent.message import Message, called, calls, text

__all__ = ["as_json"]


def as_json(messages: Iterable[Message]) -> str:
    """The messages; of parts that are no text only their type."""
    return json.dumps([_message(message) for message in messages], default=str)


def _message(message: Message) -> dict[str, Any]:
    role = str(message.get("role"))
    if role in ("tool", "function"):
        answer = {
            "type": "tool_call_response",
            "id": message.get("tool_call_id"),
            "response": text(message),
        }
        return {"role": "tool", "parts": [answer]}
    return {"role": role, "parts": [*_content(message), *map(_call, calls(message))]}


def _content(message: Message) -> Iterator[dict[str, Any]]:
    content = message.get("content")
    if isinstance(content, str):
        yield {"type": "text", "content": content}
        return
    for part in content or ():
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            yield {"type": "text", "content": part.get("text")}
        else:
            yield {"type": str(kind or type(part).__name__)}


def _call(call: Any) -> dict[str, Any]:
    name, arguments = called(call)
    return {"type": "tool_call", "id": call.get("id"), "name": name, "arguments": arguments}
