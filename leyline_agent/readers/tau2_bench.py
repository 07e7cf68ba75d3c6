"""tau2-bench: a results file with `simulations`, or one simulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers.chat import Chat, assistant, looks_like_messages, tool_call, tool_result
from leyline_agent.readers.fields import mapping, mappings, maybe, text
from leyline_agent.readers.recording import Recording
from leyline_agent.readers.tau_bench import solved

__all__ = ["NAME", "matches", "recordings"]

NAME = "tau2-bench"


def matches(record: Any) -> bool:
    """Results with `simulations`, or an object with `messages` and a `termination_reason`."""
    if not isinstance(record, dict):
        return False
    simulations = record.get("simulations")
    if isinstance(simulations, list):
        return bool(simulations) and all(_is_simulation(item) for item in simulations)
    return _is_simulation(record)


def _is_simulation(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and "termination_reason" in item
        and looks_like_messages(item.get("messages"))
    )


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run a simulation, with the domain's policy as system prompt where it was recorded."""
    if "simulations" not in record:
        yield _recording(record, {})
        return
    info = mapping(record.get("info") or {}, "info")
    for simulation in mappings(record["simulations"], "simulations"):
        yield _recording(simulation, info)


def _recording(simulation: Mapping[str, Any], info: Mapping[str, Any]) -> Recording:
    raw = mappings(simulation["messages"], "messages")
    environment = maybe(info.get("environment_info"), dict) or {}
    policy = maybe(simulation.get("policy"), str) or maybe(environment.get("policy"), str)
    reward = (maybe(simulation.get("reward_info"), dict) or {}).get("reward")
    agent = maybe(info.get("agent_info"), dict) or {}
    return Recording(
        id=str(simulation.get("id") or simulation.get("task_id") or ""),
        format=NAME,
        messages=tuple(_messages(raw, policy)),
        usage=tuple(m["usage"] for m in raw if m["role"] == "assistant" and m.get("usage")),
        resolved=solved(reward),
        meta={
            "task_id": simulation.get("task_id"),
            "reward": reward,
            "termination_reason": simulation["termination_reason"],
            **({"model": agent["llm"]} if agent.get("llm") else {}),
        },
    )


def _messages(raw: list[dict[str, Any]], policy: str | None) -> list[Message]:
    """The agent's side. What the simulated user's own tools said, the agent never read."""
    chat = Chat()
    if policy and raw[0]["role"] != "system":
        chat.add({"role": "system", "content": policy})
    for index, message in enumerate(raw):
        where = f"messages[{index}]"
        if message["role"] == "tool":
            for result in _results(message, chat, where):
                chat.add(result)
        elif message["role"] == "assistant":
            chat.add(assistant(message.get("content"), _calls(message, chat, where)))
        elif message.get("content"):
            chat.add({"role": message["role"], "content": text(message["content"], where)})
    return chat.messages


def _calls(message: Mapping[str, Any], chat: Chat, where: str) -> list[dict[str, Any]]:
    return [
        tool_call(
            str(call.get("id") or chat.new_id()), str(call.get("name")), call.get("arguments")
        )
        for call in mappings(message.get("tool_calls"), f"{where}.tool_calls")
    ]


def _results(message: dict[str, Any], chat: Chat, where: str) -> Iterator[Message]:
    """The results for the agent: of one message, or of several bundled in `tool_messages`."""
    for result in mappings(message.get("tool_messages"), where) or [message]:
        if result.get("requestor", "assistant") == "assistant":
            yield tool_result(
                str(result.get("id") or next(iter(chat.open_calls), "")),
                text(result.get("content"), f"{where}.content"),
                is_error=bool(result.get("error")),
            )
