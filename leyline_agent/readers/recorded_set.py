"""Leyline's own sets (.jsonl.gz): one run a line, already OpenAI chat, with its source named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers import mini_swe_agent, smolagents, swe_agent
from leyline_agent.readers.chat import looks_like_messages, normalise
from leyline_agent.readers.fields import mapping, maybe, text
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings"]

NAME = "recorded-set"
_META = ("source", "format", "model", "licence", "extra")

# What the sets keep of some harnesses is still their own text, by prefix of `format`.
_TO_CHAT: dict[str, Callable[[list[Message]], list[Message]]] = {
    "chat-xml": lambda raw: swe_agent.with_calls(normalise(raw)),
    "mini-swe-agent": mini_swe_agent.to_chat,
    "smolagents": smolagents.to_chat,
    "sweagent": lambda raw: swe_agent.with_calls(normalise(raw)),
}


def matches(record: Any) -> bool:
    """An object with `source`, `format` and `messages`."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("source"), str)
        and isinstance(record.get("format"), str)
        and looks_like_messages(record.get("messages"))
    )


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run."""
    usage = record.get("usage")
    yield Recording(
        id=text(record.get("id"), "id"),
        format=NAME,
        messages=tuple(_messages(record)),
        usage=tuple(u for u in usage if isinstance(u, dict)) if isinstance(usage, list) else (),
        resolved=maybe(record.get("resolved"), bool),
        meta={key: record[key] for key in _META if record.get(key) is not None},
    )


def _messages(record: Mapping[str, Any]) -> list[Message]:
    raw = [mapping(m, f"messages[{i}]") for i, m in enumerate(record["messages"])]
    named = str(record["format"])
    to_chat = next((f for prefix, f in _TO_CHAT.items() if named.startswith(prefix)), normalise)
    return to_chat(raw)
