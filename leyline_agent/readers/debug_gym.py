"""debug-gym (debug_gym.jsonl): a log of steps, each an action with its observation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers.chat import Chat, assistant, normalise, tool_call
from leyline_agent.readers.fields import mapping, mappings, maybe, text
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings"]

NAME = "debug-gym"


def matches(record: Any) -> bool:
    """An object whose `log` holds steps with `action` and `obs`."""
    log = record.get("log") if isinstance(record, dict) else None
    return isinstance(log, list) and bool(log) and all(_is_step(step) for step in log)


def _is_step(step: Any) -> bool:
    return isinstance(step, dict) and "action" in step and "obs" in step


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run. The steps are the whole history, even where the agent showed the model less."""
    steps = mappings(record["log"], "log")
    chat = Chat()
    for message in _opening(steps):
        chat.add(message)
    for index, step in enumerate(steps):
        if step["action"] is not None:
            _add_step(chat, step, f"log[{index}]")
    yield Recording(
        id=text(record.get("problem"), "problem"),
        format=NAME,
        messages=tuple(chat.messages),
        tools=tuple(mappings(record.get("tools"), "tools")),
        usage=tuple(usage for step in steps for usage in _usage(step)),
        resolved=maybe(record.get("success"), bool),
        meta={key: record[key] for key in ("agent_type", "uuid") if record.get(key)},
    )


def _opening(steps: list[dict[str, Any]]) -> list[Message]:
    """What stood before the first action: the first prompt recorded, else the first observation."""
    for step in steps:
        for pair in _pairs(step):
            return normalise(pair.get("prompt"), "log.prompt_response_pairs.prompt")
    first = steps[0]
    return [{"role": "user", "content": text(first["obs"], "log[0].obs")}]


def _add_step(chat: Chat, step: Mapping[str, Any], where: str) -> None:
    action = mapping(step["action"], f"{where}.action")
    replies = [pair["response"] for pair in _pairs(step) if pair.get("response")]
    said = step.get("content") or (replies[-1] if replies else None)
    name = text(action.get("name"), f"{where}.action.name")
    call = tool_call(str(action.get("id") or chat.new_id()), name, action.get("arguments"))
    chat.add(assistant(said, [call]))
    chat.observe(text(step["obs"], f"{where}.obs"))


def _pairs(step: Mapping[str, Any]) -> list[dict[str, Any]]:
    return mappings(step.get("prompt_response_pairs"), "log.prompt_response_pairs")


def _usage(step: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for pair in _pairs(step):
        usage = pair.get("token_usage")
        if isinstance(usage, dict):
            yield {
                "prompt_tokens": usage.get("prompt"),
                "completion_tokens": usage.get("response"),
            }
