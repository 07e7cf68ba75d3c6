"""Anthropic messages: tool_use and tool_result blocks, the system prompt apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers.anthropic_blocks import has_blocks
from leyline_agent.readers.chat import looks_like_messages, normalise
from leyline_agent.readers.fields import mappings, text
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "openai_tools", "recordings", "to_chat"]

NAME = "anthropic-messages"


def matches(record: Any) -> bool:
    """Messages with a top-level system prompt, or with Anthropic's content blocks."""
    messages = record.get("messages") if isinstance(record, dict) else record
    if messages is None or not looks_like_messages(messages):
        return False
    apart = isinstance(record, dict) and bool(record.get("system"))
    return apart or any(has_blocks(message) for message in messages)


def recordings(record: Any) -> Iterator[Recording]:
    """One run: the request's messages, and the reply where it was logged as `response`."""
    if isinstance(record, list):
        record = {"messages": record}
    messages = [*record["messages"]]
    response = record.get("response")
    if isinstance(response, dict) and response.get("content"):
        messages.append({"role": "assistant", "content": response["content"]})
    usage = response.get("usage") if isinstance(response, dict) else None
    yield Recording(
        id=str(record.get("id") or ""),
        format=NAME,
        messages=tuple(to_chat(messages, record.get("system"))),
        tools=openai_tools(mappings(record.get("tools"), "tools")),
        usage=(usage,) if isinstance(usage, dict) else (),
        meta={key: record[key] for key in ("model",) if record.get(key)},
    )


def to_chat(messages: list[Any], system: Any = None) -> list[Message]:
    """OpenAI-chat messages of Anthropic's, the system prompt (text or blocks) first."""
    first = [{"role": "system", "content": system}] if system else []
    return normalise([*first, *messages])


def openai_tools(tools: list[dict[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """OpenAI tool specifications of Anthropic's; those of OpenAI's shape stay."""
    return tuple(tool if "function" in tool else _tool(tool) for tool in tools)


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {
        "name": text(tool.get("name"), "tools.name"),
        "description": text(tool.get("description"), "tools.description"),
        "parameters": tool.get("input_schema") or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}
