"""Anthropic's content blocks out of chat messages: new ones, and edited ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leyline_agent.message import Message, called, calls
from leyline_agent.readers.fields import mapping
from leyline_agent.response import as_dict

__all__ = ["Placed", "blocks_of", "content_of", "edited", "is_thinking", "kind", "made", "readable"]

Placed = tuple[int | None, Any]
"""A block and its index among the blocks of the caller's message; None for one that is new."""


def readable(message: Any, where: str) -> Message:
    """A message with its blocks as dictionaries; harnesses send the client's own objects back.

    Raises:
        TrajectoryError: it is no message.
    """
    plain = mapping(message, where)
    content = plain.get("content")
    if not isinstance(content, list | tuple):
        return plain
    if all(type(block) is dict for block in content):
        return plain
    blocks = [block if isinstance(block, str) else as_dict(block) or block for block in content]
    return {**plain, "content": blocks}


def blocks_of(content: Any) -> list[Any]:
    """The blocks of a content; a string is one of text."""
    if content is None:
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return list(content) if isinstance(content, list | tuple) else []


def content_of(blocks: Sequence[Any]) -> Any:
    """The content of these blocks; a string where they are one plain text."""
    if len(blocks) == 1 and isinstance(blocks[0], Mapping) and set(blocks[0]) == {"type", "text"}:
        return blocks[0]["text"]
    return list(blocks)


def is_thinking(block: Any) -> bool:
    """Whether it holds the model's thinking, which nobody may change or mark."""
    return kind(block) in ("thinking", "redacted_thinking")


def made(message: Message) -> list[Any]:
    """The blocks of a chat message that no caller's block stands for; without empty text."""
    role = message.get("role")
    if role in ("tool", "function"):
        result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
        return [_filled(result, message)]
    if role != "assistant":
        return _contents(message)
    said = [*_contents(message), *map(_use, calls(message))]
    return [*(message.get("thinking_blocks") or ()), *said] if said else []


def edited(before: Message, after: Message, indices: Sequence[int], own: list[Any]) -> list[Placed]:
    """The blocks of a chat message whose content or calls an edit changed.

    Args:
        before: the chat message as it was made of them.
        after: the chat message now.
        indices: its blocks in the caller's message.
        own: all blocks of that message.
    """
    if before.get("role") == "tool":
        (place,) = indices
        block = as_dict(own[place]) or {}
        return [(place, _filled(block, after))]
    placed = _said(before, after, indices, own)
    if before.get("role") == "assistant":
        placed = _called(before, after, placed, own)
    return [] if all(is_thinking(block) for _, block in placed) else placed


def _said(before: Message, after: Message, indices: Sequence[int], own: list[Any]) -> list[Placed]:
    """The blocks with another text where the first text stood; thinking and calls stay."""
    if before.get("content") == after.get("content"):
        return [(index, own[index]) for index in indices]
    staying = [i for i in indices if is_thinking(own[i]) or kind(own[i]) == "tool_use"]
    going = [i for i in indices if i not in staying]
    contents = _contents(after)
    new: list[Placed] = [(None, block) for block in contents]
    if new and going:
        new[-1] = (going[-1], contents[-1])
    ahead = going[0] if going else next((i for i in staying if not is_thinking(own[i])), None)
    at = len(staying) if ahead is None else sum(i < ahead for i in staying)
    kept: list[Placed] = [(i, own[i]) for i in staying]
    return [*kept[:at], *new, *kept[at:]]


def _called(before: Message, after: Message, placed: list[Placed], own: list[Any]) -> list[Placed]:
    """The blocks with the calls that are left, their arguments as they are now."""
    was = {call.get("id"): called(call) for call in calls(before)}
    left = {call.get("id"): call for call in calls(after)}
    result: list[Placed] = []
    for place, block in placed:
        if kind(block) != "tool_use":
            result.append((place, block))
            continue
        plain = as_dict(block) or {}
        call = left.pop(plain.get("id"), None)
        if call is None:
            continue
        if called(call) != was.get(plain.get("id")):
            use = _use(call)
            block = {**plain, "name": use["name"], "input": use["input"]}
        result.append((place, block))
    return [*result, *((None, _use(call)) for call in left.values())]


def _filled(result: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """A tool_result block with the content and the error flag of a tool message."""
    filled = {k: v for k, v in result.items() if k not in ("content", "is_error")}
    content = message.get("content")
    if content:
        filled["content"] = content if isinstance(content, str) else _contents(message)
    elif "content" in result:
        filled["content"] = ""
    if message.get("is_error"):
        filled["is_error"] = True
    elif "is_error" in result:
        filled["is_error"] = False
    return filled


def _contents(message: Message) -> list[Any]:
    """What a message says, as blocks; the API refuses empty text."""
    content = message.get("content")
    parts = [content] if isinstance(content, str) else content or []
    return [block for part in parts for block in _block(part)]


def _block(part: Any) -> Iterator[Any]:
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    if kind(part) == "text":
        if str(part.get("text") or "").strip():
            yield part
    elif kind(part) == "image_url":
        yield {"type": "image", "source": _source(part.get("image_url"))}
    else:
        yield part


def _source(image: Any) -> dict[str, Any]:
    url = str(image.get("url") if isinstance(image, Mapping) else image)
    head, comma, data = url.partition(",")
    if url.startswith("data:") and comma and head.endswith(";base64"):
        media_type = head.removeprefix("data:").removesuffix(";base64")
        return {"type": "base64", "media_type": media_type, "data": data}
    return {"type": "url", "url": url}


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool_use block; arguments that are no JSON object are kept under one name."""
    name, arguments = called(call)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError:
            arguments = {"arguments": arguments}
    if not isinstance(arguments, Mapping):
        arguments = {} if arguments is None else {"arguments": arguments}
    return {"type": "tool_use", "id": call.get("id"), "name": name, "input": dict(arguments)}


def kind(block: Any) -> Any:
    """A block's type."""
    return block.get("type") if isinstance(block, Mapping) else getattr(block, "type", None)
