"""Anthropic content blocks (tool_use, tool_result, thinking) as OpenAI-chat messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers.fields import mapping

__all__ = ["has_blocks", "split", "traced"]

_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "image"})
_KNOWN = _BLOCKS | {"text"}


def has_blocks(message: Any) -> bool:
    """Whether a message's content holds blocks that only Anthropic's API has."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(content, list) and any(_kind(block) in _BLOCKS for block in content)


def split(message: dict[str, Any], where: str) -> Iterator[Message]:
    """The OpenAI-chat messages one message stands for."""
    return (chat for chat, _ in traced(message, where))


def traced(message: dict[str, Any], where: str) -> Iterator[tuple[Message, tuple[int, ...]]]:
    """The OpenAI-chat messages one message stands for, each with the indices of its blocks.

    Itself when it has no Anthropic block. A user turn's results come first, one message each, then
    what else the user said. Thinking becomes `reasoning_content`, which identity and rendering
    ignore. Unknown blocks stay as parts.
    """
    if not has_blocks(message):
        content = message.get("content")
        length = len(content) if isinstance(content, list) else int(content is not None)
        yield message, tuple(range(length))
        return
    rest: list[Any] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    others: list[int] = []
    for index, block in enumerate(message["content"]):
        if isinstance(block, str):
            block = {"type": "text", "text": block}
        kind = _kind(mapping(block, f"{where}.content[{index}]"))
        if kind == "tool_result":
            yield _result(block), (index,)
            continue
        others.append(index)
        if kind == "tool_use":
            calls.append(_call(block))
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking") or ""))
        elif kind != "redacted_thinking":
            rest.append(_part(block))
    if rest or calls or message.get("role") == "assistant":
        plain = {k: v for k, v in message.items() if k not in ("content", "tool_calls")}
        extra = {"reasoning_content": "\n".join(thoughts)} if any(thoughts) else {}
        yield {**plain, **extra, "content": rest or None, "tool_calls": calls}, tuple(others)


def _kind(block: Any) -> str:
    mapped = type(block) is dict or isinstance(block, Mapping)
    kind = block.get("type") if mapped else None
    return kind if isinstance(kind, str) and kind in _KNOWN else "unknown"


def _call(block: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    return {"id": block.get("id"), "function": {"name": block.get("name"), "arguments": arguments}}


def _result(block: Mapping[str, Any]) -> Message:
    content = block.get("content")
    if isinstance(content, list):
        content = [_part(part) for part in content]
    result = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
    return {**result, "is_error": True} if block.get("is_error") else result


def _part(block: Any) -> Any:
    """A content part, images in OpenAI's shape."""
    source = block.get("source") if _kind(block) == "image" else None
    if not isinstance(source, Mapping):
        return block
    url = source.get("url") or f"data:{source.get('media_type')};base64,{source.get('data')}"
    return {"type": "image_url", "image_url": {"url": url}}
