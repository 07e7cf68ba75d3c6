"""Messages: plain OpenAI-chat dictionaries, their text and their identity.

Leyline never wraps a harness's messages. Two messages are *the same* when their canonical forms
agree: what providers and harnesses add on the way (cache hints, null fields, reasoning echoes)
is ignored, what the model reads is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "Message",
    "called",
    "calls",
    "canonical",
    "copy",
    "digest",
    "text",
    "view_digest",
]

Message = dict[str, Any]

# Fields that change what the model reads. Everything else is bookkeeping of some provider.
_KEPT = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call", "is_error")
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode
_PART_EXTRAS = frozenset({"cache_control", "annotations"})


def canonical(message: Mapping[str, Any]) -> Message:
    """What identifies a message: known fields only, nulls and unset flags dropped, text joined."""
    result: Message = {}
    for key in _KEPT:
        value = message.get(key)
        if value is None or value is False or value == []:
            continue
        if key == "content":
            value = _canonical_content(value)
        elif key == "tool_calls" and isinstance(value, list | tuple):
            value = [_canonical_call(call) for call in value]
        result[key] = value
    if result.get("content") == "" and "tool_calls" in result:
        del result["content"]
    return result


def _canonical_content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    parts = [_canonical_part(part) for part in content]
    if all(isinstance(part, str) for part in parts):
        return "".join(parts)
    return parts


def _canonical_part(part: Any) -> Any:
    if isinstance(part, Mapping):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return part["text"]
        return {k: v for k, v in part.items() if k not in _PART_EXTRAS and v is not None}
    return part


def _canonical_call(call: Any) -> Any:
    if not isinstance(call, Mapping):
        return call
    name, arguments = called(call)
    return {"id": call.get("id"), "name": name, "arguments": arguments}


def digest(message: Mapping[str, Any]) -> str:
    """A short hash of the canonical form (128 bits, hex)."""
    payload = _encode(canonical(message))
    return hashlib.blake2b(payload.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def view_digest(digests: Iterable[str]) -> str:
    """The digest of a whole view, from its messages' digests in order."""
    return hashlib.blake2b("\n".join(digests).encode(), digest_size=16).hexdigest()


def copy(message: Mapping[str, Any]) -> Message:
    """A deep copy of the containers; strings are shared. Later changes by the caller don't show."""
    return {key: _copy_value(value) for key, value in message.items()}


def _copy_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copy_value(item) for item in value]
    return value


def calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tool calls of a message, `function_call` of old included; what is no call is left out."""
    found = message.get("tool_calls")
    if not found and "function_call" not in message:  # Most messages; asked of every one, often.
        return []
    if type(found) is list and all(type(call) is dict for call in found):
        return found
    made = [c for c in found if isinstance(c, Mapping)] if isinstance(found, list | tuple) else []
    if not made and isinstance(message.get("function_call"), Mapping):
        return [{"function": message["function_call"]}]
    return made


def called(call: Mapping[str, Any]) -> tuple[Any, Any]:
    """The name and the arguments of one tool call; None where there are none."""
    function = call.get("function")
    if isinstance(function, Mapping):
        return function.get("name"), function.get("arguments")
    custom = call.get("custom")  # OpenAI's calls of tools that take plain text.
    if isinstance(custom, Mapping):
        return custom.get("name"), {"input": custom.get("input")}
    return None, None


def text(message: Mapping[str, Any]) -> str:
    """The readable text of a message's content; images and unknown parts count as nothing."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(_part_text(part) for part in content)
    return ""


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        value = part.get("text", part.get("content", ""))
        if isinstance(value, str):
            return value
        if isinstance(value, Sequence):
            return "".join(_part_text(item) for item in value)
    return ""
