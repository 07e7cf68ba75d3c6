"""mini-swe-agent 1.x and 2.x (.traj.json): native tool calls, or one fenced command a turn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers import text_calls
from leyline_agent.readers.chat import normalise, usages
from leyline_agent.readers.fields import items, mapping, maybe
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings", "to_chat"]

NAME = "mini-swe-agent"
_RETURNCODE = re.compile(
    r"\s*(?:<exception>.*?</exception>\s*)?<returncode>(-?\d{1,10})</returncode>", re.DOTALL
)


def matches(record: Any) -> bool:
    """It names its own format."""
    named = record.get("trajectory_format") if isinstance(record, dict) else None
    return isinstance(named, str) and named.startswith("mini-swe-agent")


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run. The closing `exit` message is the harness's: it goes to `meta`, not the model."""
    raw = items(record.get("messages"), "messages")
    spoken = [m for m in raw if not (isinstance(m, dict) and m.get("role") == "exit")]
    info = mapping(record.get("info") or {}, "info")
    model = _path(info, "config", "model", "model_name")
    yield Recording(
        id=str(record.get("instance_id") or ""),
        format=NAME,
        messages=tuple(to_chat(spoken)),
        usage=usages(_path(m, "extra", "response") for m in spoken),
        resolved=maybe(info.get("resolved"), bool),
        meta={
            "trajectory_format": record["trajectory_format"],
            **({"model": model} if model else {}),
            **{key: info[key] for key in ("exit_status", "submission") if info.get(key)},
        },
    )


def to_chat(raw: list[Any]) -> list[Message]:
    """OpenAI-chat messages with exit codes; fenced commands as calls where none are native."""
    messages = normalise([_with_exit_code(message) for message in raw])
    if any(message.get("tool_calls") for message in messages):
        return messages
    return text_calls.rebuild(messages, text_calls.mini_fenced)


def _with_exit_code(message: Any) -> Any:
    """The message with the observation's return code as `extra.exit_code`, nothing else there."""
    if not isinstance(message, dict):
        return message
    plain = {key: value for key, value in message.items() if key != "extra"}
    if message.get("role") not in ("tool", "user"):
        return plain
    code = _path(message, "extra", "returncode")
    if code is None and isinstance(message.get("content"), str):
        shown = _RETURNCODE.match(message["content"])
        code = int(shown[1]) if shown else None
    return plain if not isinstance(code, int) else {**plain, "extra": {"exit_code": code}}


def _path(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
