"""LangChain 1.x and LangGraph: an agent middleware whose model calls are turns.

    create_agent(model, tools, middleware=[LeylineMiddleware(policies="keep_last:n=5")])

The graph's state stays the full record; only what is sent is edited. It goes last in the list, so
that what it edits is what other middleware leaves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Unpack

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion, missing
from leyline_agent.adapter import Adapter
from leyline_agent.message import Message
from leyline_agent.policy import PolicyLike
from leyline_agent.settings import SessionOptions

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
    from langchain_core.utils.function_calling import convert_to_openai_tool
except ImportError as error:
    raise missing("langchain", "langchain>=1.4,<2", error) from error

__all__ = ["LeylineMiddleware"]

_ROLES = {"human": "user", "ai": "assistant"}
_CALL_BLOCKS = ("tool_use", "tool_call", "function_call")  # Said again in `tool_calls`.


class LeylineMiddleware(AgentMiddleware):
    """Policies around an agent's model, sync and async.

    Conversations are told apart by the runtime's `thread_id` where there is one, else by history.
    The agent's system prompt is no part of it, for it may change with every call.

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
        super().__init__()
        self._harness = Harness("langchain", _Codec(), policies, adapter, journal, options)
        self.leyline = self._harness.leyline

    def wrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
    ) -> ModelResponse:
        """Call the model with the view; of a recall, call it again."""
        turn = self._begin(request)
        return turn.run(lambda turn: handler(_overridden(request, turn)), _told, _made, _made)

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> ModelResponse:
        """`wrap_model_call`, awaited."""
        turn = self._begin(request)
        return await turn.arun(
            lambda turn: handler(_overridden(request, turn)), _told, _made, _made
        )

    def _begin(self, request: ModelRequest) -> NativeTurn[BaseMessage]:
        own = request.system_message if self._harness.caller else None
        running = getattr(request.runtime, "execution_info", None)
        settings = dict(request.model_settings)
        if request.tool_choice is not None:
            settings["tool_choice"] = request.tool_choice
        return self._harness.begin(
            [own, *request.messages] if own else request.messages,
            [convert_to_openai_tool(tool) for tool in request.tools],
            key=getattr(running, "thread_id", None),
            **settings,
        )


def _overridden(request: ModelRequest, turn: NativeTurn[BaseMessage]) -> ModelRequest:
    return request.override(
        messages=turn.messages,
        tools=[*request.tools, *turn.tools],
        model_settings={**request.model_settings, **turn.extra},
    )


class _Codec:
    def read(self, native: BaseMessage) -> Message:
        role = getattr(native, "role", None) or _ROLES.get(native.type, native.type)
        content = native.content
        if isinstance(content, list):
            content = [part for part in content if not _is_call(part)]
        message: Message = {"role": role, "content": content}
        if native.name:
            message["name"] = native.name
        if role == "tool":
            message["tool_call_id"] = native.tool_call_id
            if native.status == "error":
                message["is_error"] = True
        if made := getattr(native, "tool_calls", None):
            message["tool_calls"] = [_chat_call(c["id"], c["name"], c["args"]) for c in made]
        return message

    def edited(self, native: BaseMessage, message: Message) -> BaseMessage:
        changes: dict[str, Any] = {"content": message.get("content") or ""}
        if isinstance(native, AIMessage):
            changes["tool_calls"] = self.made(message).tool_calls
            raw = native.additional_kwargs
            changes["additional_kwargs"] = {k: v for k, v in raw.items() if k != "tool_calls"}
        return native.model_copy(update=changes)

    def made(self, message: Message) -> BaseMessage:
        plain = {key: value for key, value in message.items() if value is not None}
        (native,) = convert_to_messages([{"content": "", **plain}])
        return native


def _chat_call(id: str | None, name: str, arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": id, "type": "function", "function": function}


def _is_call(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _CALL_BLOCKS


def _reply(response: Any) -> AIMessage:
    found = getattr(response, "model_response", response)
    replies = getattr(found, "result", None) or [found]
    return next(message for message in replies if isinstance(message, AIMessage))


def _told(response: Any) -> Completion:
    """A chat completion of what a handler returns: a response, one extended, or a message."""
    reply = _reply(response)
    usage = reply.usage_metadata or {}
    cached = (usage.get("input_token_details") or {}).get("cache_read") or 0
    counted = {
        "prompt_tokens": usage.get("input_tokens"),
        "completion_tokens": usage.get("output_tokens"),
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return completion(_Codec().read(reply), counted if usage else None)


def _made(answer: Completion, response: Any = None) -> Any:
    """The other way round: a new response, or a copy of one with another reply."""
    message, usage = answer["choices"][0]["message"], answer.get("usage") or {}
    prompt, new = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    counted = {
        "input_tokens": prompt,
        "output_tokens": new,
        "total_tokens": prompt + new,
        "input_token_details": {"cache_read": cached},
    }
    if response is None:
        reply = _Codec().made(message)
        reply.usage_metadata = counted
        return ModelResponse(result=[reply])
    known = _reply(response)
    reply = _Codec().edited(known, message)
    reply.usage_metadata = counted if usage else known.usage_metadata
    if response is known:
        return reply
    inner = getattr(response, "model_response", response)
    made = replace(inner, result=[reply if one is known else one for one in inner.result])
    return made if inner is response else replace(response, model_response=made)
