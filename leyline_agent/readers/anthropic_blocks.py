"""Anthropic content blocks (tool_use, tool_result, thinking) as OpenAI-chat messages."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers.fields import mapping

__all__ = ["has_blocks", "split"]

_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "image"})


def has_blocks(message: Any) -> bool:
    """Whether a message's content holds blocks that only Anthropic's API has."""
    content = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(content, list) and any(_kind(block) in _BLOCKS for block in content)


def split(message: dict[str, Any], where: str) -> Iterator[Message]:
    """The OpenAI-chat messages one message stands for; itself when it has no Anthropic block.

    A user turn's results come first, one message each, then what else the user said. Thinking
    becomes `reasoning_content`, which identity and rendering ignore. Unknown blocks stay as parts.
    """
    if not has_blocks(message):
        yield message
        return
    blocks = [
        {"type": "text", "text": block}
        if isinstance(block, str)
        else mapping(block, f"{where}.content[{index}]")
        for index, block in enumerate(message["content"])
    ]
    yield from (_result(block) for block in blocks if _kind(block) == "tool_result")
    rest = [_part(block) for block in blocks if _kind(block) in ("text", "image", "unknown")]
    calls = [_call(block) for block in blocks if _kind(block) == "tool_use"]
    if rest or calls or message.get("role") == "assistant":
        plain = {k: v for k, v in message.items() if k not in ("content", "tool_calls")}
        thoughts = [str(b.get("thinking") or "") for b in blocks if _kind(b) == "thinking"]
        extra = {"reasoning_content": "\n".join(thoughts)} if any(thoughts) else {}
        yield {**plain, **extra, "content": rest or None, "tool_calls": calls}


def _kind(block: Any) -> str:
    kind = block.get("type") if isinstance(block, Mapping) else None
    return kind if isinstance(kind, str) and kind in _BLOCKS | {"text"} else "unknown"


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
