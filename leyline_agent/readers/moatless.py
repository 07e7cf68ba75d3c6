"""moatless-tools (trajectory.json): a tree of nodes, each an action with its observation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message
from leyline_agent.readers.anthropic_messages import to_chat
from leyline_agent.readers.chat import Chat, assistant, normalise, tool_call
from leyline_agent.readers.fields import items, mapping, mappings, maybe, text
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings"]

NAME = "moatless"
_NOT_ARGUMENTS = frozenset({"action_args_class", "scratch_pad", "thoughts"})


def matches(record: Any) -> bool:
    """An object whose `nodes` have ids."""
    nodes = record.get("nodes") if isinstance(record, dict) else None
    return isinstance(nodes, list) and bool(nodes) and all(_is_node(node) for node in nodes)


def _is_node(node: Any) -> bool:
    return isinstance(node, dict) and "node_id" in node


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run: the path from the root to the last node made."""
    path = _path(mappings(record["nodes"], "nodes"))
    agent = mapping(record.get("agent") or {}, "agent")
    metadata = mapping(record.get("metadata") or {}, "metadata")
    model = (maybe(agent.get("completion"), dict) or {}).get("model")
    yield Recording(
        id=str(metadata.get("instance_id") or ""),
        format=NAME,
        messages=tuple(_messages(path, text(agent.get("system_prompt"), "agent.system_prompt"))),
        usage=tuple(u for node in path if isinstance(u := _completion(node).get("usage"), dict)),
        meta={"model": model} if model else {},
    )


def _path(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The nodes from the root to the last one; every node is on it at most once."""
    by_id = {str(node["node_id"]): node for node in nodes}
    path: list[dict[str, Any]] = []
    node: dict[str, Any] | None = nodes[-1]
    while node is not None:
        path.append(node)
        parent = by_id.pop(str(node.get("parent_id")), None)
        node = None if parent is path[0] else parent
    return path[::-1]


def _completion(node: Mapping[str, Any]) -> dict[str, Any]:
    """The model call that chose a node's action."""
    completions = maybe(node.get("completions"), dict) or {}
    return maybe(completions.get("build_action"), dict) or {}


def _messages(path: list[dict[str, Any]], system: str) -> list[Message]:
    chat = Chat()
    for message in _asked(path, system):
        chat.add(message)
    # What the last prompt shows is history; nodes behind it are added from their own fields.
    first_new = max((i for i, node in enumerate(path) if _completion(node).get("input")), default=0)
    for node in path[first_new:]:
        _add_step(chat, node, f"nodes[{node['node_id']}]")
    return chat.messages


def _asked(path: list[dict[str, Any]], system: str) -> list[Message]:
    """What the last recorded model call read; the task alone where none was recorded."""
    prompts = [_completion(node).get("input") for node in path]
    prompt = next((items(p, "completions.input") for p in reversed(prompts) if p), None)
    if prompt is None:
        prompt = [{"role": "user", "content": text(path[0].get("message"), "nodes[0].message")}]
    has_system = bool(prompt) and isinstance(prompt[0], dict) and prompt[0].get("role") == "system"
    return to_chat(prompt, None if has_system else system)


def _add_step(chat: Chat, node: Mapping[str, Any], where: str) -> None:
    """The model's reply and the action's observation."""
    if node.get("action"):
        chat.add(_reply(node) or _action(chat, mapping(node["action"], f"{where}.action")))
    observation = maybe(node.get("observation") or node.get("output"), dict)
    if observation is not None:
        shown = text(observation.get("message"), f"{where}.observation.message")
        chat.observe(f"<observation>\n{shown}\n</observation>")


def _reply(node: Mapping[str, Any]) -> Message | None:
    """The assistant message of a recorded response, Anthropic's or OpenAI's."""
    response = maybe(_completion(node).get("response"), dict) or {}
    choices = maybe(response.get("choices"), list)
    if choices and isinstance(choices[0], dict):
        response = maybe(choices[0].get("message"), dict) or {}
    if response.get("role") != "assistant":
        return None
    return normalise([response], "completions.response")[0]


def _action(chat: Chat, action: Mapping[str, Any]) -> Message:
    """The assistant message of an action whose response was not kept."""
    kind = text(action.get("action_args_class"), "action.action_args_class").rpartition(".")[2]
    arguments = {key: value for key, value in action.items() if key not in _NOT_ARGUMENTS}
    said = text(action.get("thoughts") or action.get("scratch_pad"), "action.scratch_pad")
    call = tool_call(chat.new_id(), kind.removesuffix("Args") or "action", arguments)
    return assistant(said or None, [call])
