"""SWE-agent 0.x and 1.x (.traj): function calls, XML functions, or thought and fenced action."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers import text_calls
from leyline_agent.readers.chat import Chat, looks_like_messages, normalise
from leyline_agent.readers.fields import mapping, mappings, text
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings", "with_calls"]

NAME = "swe-agent"


def matches(record: Any) -> bool:
    """An object with the steps (`trajectory`) and the model's `history`."""
    if not isinstance(record, dict) or not isinstance(record.get("trajectory"), list):
        return False
    return looks_like_messages(record.get("history"))


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run, from the history: what the model read, demonstrations included."""
    history = mappings(record["history"], "history")
    info = mapping(record.get("info") or {}, "info")
    messages = normalise([_one_result(message) for message in history], "history")
    if not any(message.get("tool_calls") for message in messages):
        messages = _recorded_actions(history, messages)
    yield Recording(
        id=str(record.get("instance_id") or record.get("environment") or ""),
        format=NAME,
        messages=tuple(messages),
        meta={
            key: info[key]
            for key in ("exit_status", "submission", "model_stats", "swe_agent_version")
            if info.get(key)
        },
    )


def with_calls(messages: list[Message]) -> list[Message]:
    """Tool calls made of text, for histories without native calls that kept the text alone."""
    if any(message.get("tool_calls") for message in messages):
        return messages
    return text_calls.rebuild(messages, _written_call)


def _written_call(said: str) -> text_calls.TextCall | None:
    """The call in a message's text, as any of SWE-agent's parsers would find it."""
    return text_calls.xml(said) or text_calls.tagged(said) or text_calls.fenced(said)


def _one_result(message: dict[str, Any]) -> dict[str, Any]:
    """The plural `tool_call_ids` of an observation as the one id OpenAI knows."""
    ids = message.get("tool_call_ids")
    return {**message, "tool_call_id": ids[0]} if isinstance(ids, list) and ids else message


def _recorded_actions(history: list[dict[str, Any]], messages: list[Message]) -> list[Message]:
    """Tool calls made of the thoughts and actions SWE-agent parsed and recorded itself."""
    chat = Chat()
    for raw, message in zip(history, messages, strict=True):
        call = _call(raw) if message["role"] == "assistant" else None
        if call is not None:
            chat.say(*call)
        elif message["role"] == "user" and chat.open_calls:
            chat.observe(message["content"])
        else:
            chat.add(message)
    return chat.messages


def _call(raw: Mapping[str, Any]) -> text_calls.TextCall | None:
    action = text(raw.get("action"), "history.action")
    if not action.strip():
        return None
    written = text_calls.xml(text(raw.get("content"), "history.content"))
    thought = text(raw.get("thought"), "history.thought")
    return written or text_calls.TextCall(
        thought, text_calls.SHELL, {"command": action.rstrip("\n")}
    )
