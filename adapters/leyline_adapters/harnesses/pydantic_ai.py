"""pydantic-ai 1.x and 2.x: a model around a model, whose requests are turns.

    Agent(LeylineModel("openai:gpt-5", policies="keep_last:n=5"), tools=[...])

A wrapped model rather than a history processor: it is the same in both versions, it learns of
the reply and its usage, and the run's own messages stay the full record, which a processor would
overwrite.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple, Unpack

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion, missing
from leyline_agent.adapter import Adapter
from leyline_agent.errors import AdapterError
from leyline_agent.message import Message, called, calls, text
from leyline_agent.policy import PolicyLike
from leyline_agent.settings import SessionOptions

try:
    from pydantic_ai.messages import (
        ModelMessage,
        ModelRequest,
        ModelResponse,
        SystemPromptPart,
        TextPart,
        ToolCallPart,
        ToolReturnPart,
        UserPromptPart,
    )
    from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import ToolDefinition
    from pydantic_ai.usage import RequestUsage
except ImportError as error:
    raise missing("pydantic-ai", "pydantic-ai-slim>=1.107,<3", error) from error

__all__ = ["LeylineModel"]

_FILES = ("binary", "document-url", "uploaded-file")


class LeylineModel(WrapperModel):
    """Policies around a model. Conversations are told apart by their `conversation_id`.

    Streams are edited too; a recall is not offered in them, for its call could not be hidden.

    Args:
        wrapped: a model or its name, as for `Agent`.
        policies, adapter: as for `Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of the sessions; see `SessionOptions`.

    Attributes:
        leyline: the last `sessions`, and in `bypassed` the calls that went out unedited.
    """

    def __init__(
        self,
        wrapped: Model | str,
        policies: PolicyLike | None = None,
        adapter: Adapter | str | None = None,
        journal: str | os.PathLike[str] | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        super().__init__(wrapped)
        self._harness = Harness("pydantic_ai", _Codec(), policies, adapter, journal, options)
        self.leyline = self._harness.leyline

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the wrapped model with the view; of a recall, ask it again."""
        turn = self._begin(messages, model_settings, model_request_parameters)

        async def send(turn: NativeTurn[_Unit]) -> ModelResponse:
            offered = _offering(model_request_parameters, turn)
            settings = _with(model_settings, turn)
            return await self.wrapped.request(_joined(turn.messages), settings, offered)

        return await turn.arun(send, _told, _made, _made)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """`request`, streamed; a stream that is left early gives its turn up.

        Raises:
            AdapterError: the adapter makes calls itself.
        """
        turn = self._begin(messages, model_settings, model_request_parameters)
        if turn.caller:
            turn.failed("stream")
            raise AdapterError(
                f"adapter {turn.caller.name!r} makes the model's calls itself, and here not as a "
                "stream; run the agent without streaming"
            )
        settings = _with(model_settings, turn)
        try:
            async with self.wrapped.request_stream(
                _joined(turn.messages), settings, model_request_parameters, run_context
            ) as stream:
                yield stream
                response = stream.get()
        except BaseException as error:
            turn.failed(error)
            raise
        if response.state == "complete":
            turn.answered(turn.read(_told, response))
        turn.failed("abandoned")

    def _begin(
        self, messages: list[ModelMessage], settings: ModelSettings | None, offered: Any
    ) -> NativeTurn[_Unit]:
        named = (getattr(message, "conversation_id", None) for message in reversed(messages))
        return self._harness.begin(
            _split(messages),
            [_chat_tool(tool) for tool in (*offered.function_tools, *offered.output_tools)],
            key=next(filter(None, named), None),
            **(settings or {}),
        )


def _with(settings: ModelSettings | None, turn: NativeTurn[_Unit]) -> ModelSettings | None:
    return {**(settings or {}), **turn.extra} if turn.extra else settings


def _offering(offered: ModelRequestParameters, turn: NativeTurn[_Unit]) -> ModelRequestParameters:
    if not turn.tools:
        return offered
    added = [
        ToolDefinition(name=f["name"], parameters_json_schema=f["parameters"],
                       description=f.get("description"))
        for f in (tool["function"] for tool in turn.tools)
    ]  # fmt: skip
    return replace(offered, function_tools=[*offered.function_tools, *added])


class _Unit(NamedTuple):
    """What is one chat message: a response, or one part of a request."""

    message: ModelMessage
    part: Any = None


def _split(messages: Iterable[ModelMessage]) -> list[_Unit]:
    units: list[_Unit] = []
    for message in messages:
        parts = message.parts if isinstance(message, ModelRequest) else ()
        units.extend([_Unit(message, part) for part in parts] or [_Unit(message)])
    return units


def _joined(units: Iterable[_Unit]) -> list[ModelMessage]:
    """The messages of units; a request whose parts are all there is the very same object."""
    joined: list[ModelMessage] = []
    for _, group in groupby(units, key=lambda unit: id(unit.message)):
        found = list(group)
        message, parts = found[0].message, [unit.part for unit in found if unit.part is not None]
        whole = len(parts) == len(message.parts) and all(map(_same, parts, message.parts))
        if isinstance(message, ModelRequest) and not whole:
            message = replace(message, parts=parts)
        joined.append(message)
    return joined


def _same(one: Any, other: Any) -> bool:
    return one is other


class _Codec:
    def read(self, native: _Unit) -> Message:
        if isinstance(native.message, ModelResponse):
            return _read_response(native.message)
        return _read_part(native.part) if native.part else {"role": "user", "content": ""}

    def edited(self, native: _Unit, message: Message) -> _Unit:
        if isinstance(native.message, ModelResponse):
            return _Unit(_edited_response(native.message, message))
        return native._replace(part=replace(native.part, content=text(message)))

    def made(self, message: Message) -> _Unit:
        role, content = message["role"], text(message)
        if role == "assistant":
            said = [TextPart(content)] if content else []
            return _Unit(ModelResponse([*said, *map(_call_part, calls(message))]))
        if role == "tool":
            id = str(message["tool_call_id"])
            part: Any = ToolReturnPart(str(message.get("name") or ""), content, id)
        else:
            part = (SystemPromptPart if role == "system" else UserPromptPart)(content)
        return _Unit(ModelRequest([part]), part)


def _read_part(part: Any) -> Message:
    kind = part.part_kind
    if kind == "system-prompt":
        return {"role": "system", "content": part.content}
    if kind == "user-prompt":
        content = part.content
        return {"role": "user", "content": content if isinstance(content, str) else _parts(content)}
    if kind == "tool-return" or (kind == "retry-prompt" and part.tool_name):
        failed = kind == "retry-prompt" or part.outcome in ("failed", "retried")
        said = part.model_response() if kind == "retry-prompt" else part.model_response_str()
        message = {"role": "tool", "tool_call_id": part.tool_call_id, "content": said}
        return {**message, "is_error": True} if failed else message
    if kind in ("retry-prompt", "retry-feedback"):
        return {"role": "user", "content": part.model_response()}
    return {"role": "user", "content": [{"type": kind, "value": repr(part)}]}


def _parts(content: Iterable[Any]) -> list[dict[str, Any]]:
    """Texts as such; of a file, what tells it from others."""
    return [
        {"type": "text", "text": one if isinstance(one, str) else one.content}
        if isinstance(one, str) or one.kind == "text-content"
        else {"type": _chat_kind(one.kind), "id": getattr(one, "identifier", None)}
        for one in content
        if isinstance(one, str) or one.kind != "cache-point"
    ]


def _chat_kind(kind: str) -> str:
    return "file" if kind in _FILES else kind.replace("-", "_")


def _read_response(response: ModelResponse) -> Message:
    said = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    made = [
        {
            "id": part.tool_call_id,
            "type": "function",
            "function": {"name": part.tool_name, "arguments": part.args_as_json_str()},
        }
        for part in response.parts
        if isinstance(part, ToolCallPart)
    ]
    message: Message = {"role": "assistant", "content": said}
    return {**message, "tool_calls": made} if made else message


def _edited_response(response: ModelResponse, message: Message) -> ModelResponse:
    """The response with other text and arguments; what it thought stays."""
    arguments = {call.get("id"): called(call)[1] for call in calls(message)}
    said = text(message)
    parts: list[Any] = []
    for part in response.parts:
        if isinstance(part, TextPart):
            parts.extend([replace(part, content=said)] if said else [])
            said = ""
        elif not isinstance(part, ToolCallPart):
            parts.append(part)
        elif part.tool_call_id in arguments:
            given = arguments[part.tool_call_id]
            kept = part.args_as_json_str() == given
            parts.append(part if kept else replace(part, args=given))
    return replace(response, parts=[*([TextPart(said)] if said else []), *parts])


def _call_part(call: Any) -> ToolCallPart:
    name, arguments = called(call)
    return ToolCallPart(name, arguments, call.get("id"))


def _chat_tool(tool: ToolDefinition) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": tool.parameters_json_schema}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _told(response: ModelResponse) -> Completion:
    """A response as a chat completion."""
    usage = response.usage
    counted = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
    }
    return completion(_read_response(response), counted if usage.input_tokens else None)


def _made(answer: Completion, response: ModelResponse | None = None) -> ModelResponse:
    """The other way round: a new response, or a copy of one with another reply."""
    message, usage = answer["choices"][0]["message"], answer.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    counts = {
        "input_tokens": usage.get("prompt_tokens") or 0,
        "output_tokens": usage.get("completion_tokens") or 0,
        "cache_read_tokens": details.get("cached_tokens") or 0,
    }
    if response is not None:
        edited = _edited_response(response, message)
        return replace(edited, usage=replace(response.usage, **counts) if usage else response.usage)
    made: ModelResponse = _Codec().made(message).message
    return replace(made, usage=RequestUsage(**counts), model_name=answer.get("model"))
