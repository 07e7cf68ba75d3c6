"""OpenAI Agents SDK: run hooks whose filter edits what each model call is sent.

    hooks = LeylineHooks(policies="keep_last:n=5")
    config = RunConfig(call_model_input_filter=hooks.edit)
    await Runner.run(agent, "Fix the bug.", run_config=config, hooks=hooks)

The run's items, and those of its session, stay the full record. Not for runs with
`conversation_id` or `previous_response_id`: there the provider keeps the history.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Unpack

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion, missing
from leyline_agent.adapter import Adapter
from leyline_agent.message import Message, called, calls, text
from leyline_agent.policy import PolicyLike
from leyline_agent.settings import SessionOptions
from leyline_agent.warning import warn

try:
    from agents import RunHooks
    from agents.run import CallModelData, ModelInputData
except ImportError as error:
    raise missing("openai-agents", "openai-agents>=0.20,<1", error) from error

__all__ = ["LeylineHooks"]

Item = dict[str, Any]
Items = tuple[Item, ...]
"""What is one chat message: all that the model said in one reply, or one other item."""

_running: ContextVar[NativeTurn[Items] | None] = ContextVar("leyline_agents_turn", default=None)


class LeylineHooks(RunHooks):
    """Policies around the model calls of runs; conversations are told apart by history.

    An agent's instructions are no part of it, for they may change with every call.
    A run takes one hooks object: subclass this one, and call what it overrides, for hooks of
    your own. The filter only edits, so there is no recall and no adapter that makes calls.

    Args:
        policies, adapter: as for `Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of the sessions; see `SessionOptions`.

    Attributes:
        leyline: the last `sessions`, and in `bypassed` the calls that went out unedited.
    """

    def __init__(
        self,
        policies: PolicyLike | None = None,
        adapter: Adapter | str | None = None,
        journal: str | os.PathLike[str] | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._harness = Harness(
            "openai_agents", _Codec(), policies, adapter, journal, options, makes_calls=False
        )
        self.leyline = self._harness.leyline
        self._hears = self._told = False

    def edit(self, data: CallModelData[Any]) -> ModelInputData:
        """What the model is sent instead of `data`: the run configuration's filter."""
        self._close()
        sent = data.model_data
        tools = [_chat_tool(t) for t in data.agent.tools if hasattr(t, "params_json_schema")]
        turn = self._harness.begin(list(_grouped(sent.input)), tools)
        _running.set(turn)
        items = [item for group in turn.messages for item in group]
        return ModelInputData(input=items, instructions=sent.instructions)

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        """Heard once, `on_llm_end` will be."""
        self._hears = True

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        """Finish the turn of the call."""
        if turn := _running.get():
            turn.answered(turn.read(_told, response))

    def _close(self) -> None:
        """End what the run asked before and heard no reply to: it failed, or hooks are missing."""
        turn = _running.get()
        if turn is None or turn.leyline is None or not turn.leyline.is_open:
            return
        if self._hears:
            turn.failed("no reply came")
            return
        turn.answered(None)
        if not self._told:
            self._told = True
            warn(
                "LeylineHooks hears of no replies: pass hooks=... to the run, beside run_config=..."
            )


class _Codec:
    def read(self, native: Items) -> Message:
        first = native[0]
        if _by_model(first):
            return _read_reply(native)
        if "call_id" in first:
            said = first.get("output")
            return {"role": "tool", "tool_call_id": first["call_id"], "content": said}
        if first.get("role"):
            return {"role": first["role"], "content": first.get("content")}
        return {"role": "user", "content": [first]}

    def edited(self, native: Items, message: Message) -> Items:
        first = native[0]
        if _by_model(first):
            return tuple(_edited_reply(native, message))
        return ({**first, "output" if "call_id" in first else "content": message["content"]},)

    def made(self, message: Message) -> Items:
        if message["role"] == "assistant":
            return tuple(_reply_items(message))
        if message["role"] == "tool":
            answered = {"call_id": message["tool_call_id"], "output": text(message)}
            return ({"type": "function_call_output", **answered},)
        return ({"role": message["role"], "content": message["content"]},)


def _by_model(item: Item) -> bool:
    role, kind = item.get("role"), item.get("type", "")
    if role is not None:
        return bool(role == "assistant")
    return not kind.endswith(("_output", "_response"))


def _grouped(items: Iterable[Any]) -> Iterator[Items]:
    """Items with what one reply consists of together: thoughts, texts and calls."""
    reply: list[Item] = []
    for item in items:
        if _by_model(item):
            reply.append(item)
            continue
        if reply:
            yield tuple(reply)
            reply = []
        yield (item,)
    if reply:
        yield tuple(reply)


def _arguments(item: Item) -> str | None:
    """The key under which a call's arguments are; None where the item is no call."""
    if "call_id" not in item:
        return None
    return next((key for key in ("arguments", "input", "action") if key in item), None)


def _read_reply(items: Items) -> Message:
    said = "".join(text(item) for item in items if item.get("role") == "assistant")
    message: Message = {"role": "assistant", "content": said}
    made = []
    for item in items:
        if (key := _arguments(item)) is not None:
            function = {"name": item.get("name") or item["type"], "arguments": item[key]}
            made.append({"id": item["call_id"], "type": "function", "function": function})
    return {**message, "tool_calls": made} if made else message


def _edited_reply(items: Items, message: Message) -> Iterator[Item]:
    """The items of a reply with another text and other arguments; what it thought stays."""
    arguments = {call.get("id"): called(call)[1] for call in calls(message)}
    said: str | None = text(message)
    for item in items:
        if item.get("role") == "assistant":
            if said:
                yield _with_text(item, said)
            said = None
        elif (key := _arguments(item)) is None:
            yield item
        elif item["call_id"] in arguments:
            given = arguments[item["call_id"]]
            yield item if item[key] == given else {**item, key: given}


def _with_text(item: Item, said: str) -> Item:
    if text(item) == said:
        return item
    if isinstance(item["content"], str):
        return {**item, "content": said}
    return {**item, "content": [{**_first_text(item["content"]), "text": said}]}


def _first_text(parts: list[Item]) -> Item:
    return next((part for part in parts if "text" in part), {"type": "output_text"})


def _reply_items(message: Message) -> Iterator[Item]:
    if said := text(message):
        yield {"role": "assistant", "content": said}
    for call in calls(message):
        name, arguments = called(call)
        asked = {"call_id": call.get("id"), "name": name, "arguments": arguments}
        yield {"type": "function_call", **asked}


def _chat_tool(tool: Any) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": tool.params_json_schema}
    return {"type": "function", "function": {**function, "description": tool.description}}


def _told(response: Any) -> Completion:
    """A model's response as a chat completion."""
    usage = response.usage
    counted = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.input_tokens_details.cached_tokens},
    }
    reply = _read_reply(tuple(response.to_input_items()))
    return completion(reply, counted if usage.input_tokens else None)
