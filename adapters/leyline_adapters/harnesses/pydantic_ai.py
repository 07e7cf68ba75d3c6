"""pydantic-ai 1.x and 2.x: a model around a model, whose requests are turns.

    Agent(LeylineModel("openai:gpt-5", policies="keep_last:n=5"), tools=[...])

A wrapped model rather than a history processor: it is the same in both versions, it learns of
the reply and its usage, and the run's own messages stay the full record, which a processor would
overwrite.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Unpack

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion, missing
from leyline_agent.adapter import Adapter
from leyline_agent.errors import AdapterError
from leyline_agent.policy import PolicyLike
from leyline_agent.settings import SessionOptions

try:
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.tools import ToolDefinition
    from pydantic_ai.usage import RequestUsage

    from leyline_adapters.harnesses.pydantic_ai_messages import (
        Unit,
        UnitCodec,
        edited_response,
        instructed,
        joined,
        read_response,
        split,
    )  # fmt: skip
except ImportError as error:
    raise missing("pydantic-ai", "pydantic-ai-slim>=1.107,<3", error) from error

__all__ = ["LeylineModel"]


class LeylineModel(WrapperModel):
    """Policies around a model. Conversations are told apart by their `conversation_id`.

    Instructions are no part of a session, for they may change with every call.
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
        self._harness = Harness("pydantic_ai", UnitCodec(), policies, adapter, journal, options)
        self.leyline = self._harness.leyline

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the wrapped model with the view; of a recall, ask it again."""
        turn = self._begin(messages, model_settings, model_request_parameters)

        async def send(turn: NativeTurn[Unit]) -> ModelResponse:
            offered = _offering(model_request_parameters, turn)
            settings = _with(model_settings, turn)
            return await self.wrapped.request(joined(turn.messages), settings, offered)

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
                joined(turn.messages), settings, model_request_parameters, run_context
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
    ) -> NativeTurn[Unit]:
        named = (getattr(message, "conversation_id", None) for message in reversed(messages))
        units = split(messages)
        if self._harness.caller:
            units = [*instructed(messages), *units]
        return self._harness.begin(
            units,
            [_chat_tool(tool) for tool in (*offered.function_tools, *offered.output_tools)],
            key=next(filter(None, named), None),
            **(settings or {}),
        )


def _with(settings: ModelSettings | None, turn: NativeTurn[Unit]) -> ModelSettings | None:
    return {**(settings or {}), **turn.extra} if turn.extra else settings


def _offering(offered: ModelRequestParameters, turn: NativeTurn[Unit]) -> ModelRequestParameters:
    if not turn.tools:
        return offered
    added = [
        ToolDefinition(name=f["name"], parameters_json_schema=f["parameters"],
                       description=f.get("description"))
        for f in (tool["function"] for tool in turn.tools)
    ]  # fmt: skip
    return replace(offered, function_tools=[*offered.function_tools, *added])


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
    return completion(read_response(response), counted if usage.input_tokens else None)


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
        edited = edited_response(response, message)
        return replace(edited, usage=replace(response.usage, **counts) if usage else response.usage)
    made: ModelResponse = UnitCodec().made(message).message
    return replace(made, usage=RequestUsage(**counts), model_name=answer.get("model"))
