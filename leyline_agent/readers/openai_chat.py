"""OpenAI chat: a list of messages, or an object with `messages` (and `tools`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from leyline_agent.readers import text_calls
from leyline_agent.readers.chat import looks_like_messages, normalise
from leyline_agent.readers.fields import mappings, maybe
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings"]

NAME = "openai-chat"


def matches(record: Any) -> bool:
    """A list of messages, or an object that holds one."""
    if isinstance(record, dict):
        record = record.get("messages")
    return looks_like_messages(record)


def recordings(record: Any) -> Iterator[Recording]:
    """One run. Calls written as XML functions become tool calls."""
    if isinstance(record, list):
        record = {"messages": record}
    messages = normalise(record["messages"])
    if text_calls.uses_xml(messages):
        messages = text_calls.rebuild(messages, text_calls.xml)
    yield Recording(
        id=str(record.get("id") or record.get("instance_id") or ""),
        format=NAME,
        messages=tuple(messages),
        tools=tuple(mappings(record.get("tools"), "tools")),
        resolved=maybe(record.get("resolved"), bool),
        meta={key: record[key] for key in ("model",) if record.get(key)},
    )
