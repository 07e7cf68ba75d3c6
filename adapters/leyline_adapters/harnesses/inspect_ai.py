"""inspect_ai: a model provider around any other, so that no task, solver or agent changes.

    inspect eval task.py --model leyline/openai/gpt-5 -M policies=truncate_older_than:n=2

or `get_model("leyline/openai/gpt-5", policies="keep_last:n=5")`. What the sample's log has as
messages stays the full record; a model event's call shows what was sent.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from dataclasses import replace as replaced
from typing import Any

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion, missing
from leyline_agent.message import Message, called, calls, text
from leyline_agent.settings import SessionOptions, Settings

try:
    from inspect_ai.model import (
        ChatMessage,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        GenerateConfig,
        ModelAPI,
        ModelOutput,
        ModelUsage,
        get_model,
        modelapi,
    )
    from inspect_ai.tool import ToolCall, ToolChoice, ToolInfo, ToolParams
except ImportError as error:
    raise missing("inspect-ai", "inspect-ai>=0.3.240,<0.4", error) from error

__all__ = ["LeylineAPI", "leyline"]

_OPTIONS = frozenset(field.name for field in fields(Settings))


class LeylineAPI(ModelAPI):
    """Another provider with policies around its calls; in all else it is that provider.

    Conversations are told apart by history; each sample and epoch begins one of its own.

    Args:
        model_name: the other model, as inspect_ai names it: "openai/gpt-5".
        base_url, api_key, config: the other provider's.
        model_args: `policies`, `adapter` and the options of a session are ours (`SessionOptions`),
            `journal` a folder in which each session writes `<session id>.jsonl`; the rest is the
            other provider's.

    Attributes:
        leyline: the last `sessions`, and in `bypassed` the calls that went out unedited.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        ours = ("policies", "adapter", "journal")
        options: Any = {key: model_args.pop(key) for key in _OPTIONS & set(model_args)}
        policies, adapter, journal = (model_args.pop(key, None) for key in ours)
        made: SessionOptions = options
        self._harness = Harness("inspect_ai", _Codec(), _whole(policies), adapter, journal, made)
        self.leyline = self._harness.leyline
        self.model_name = model_name
        self._inner = get_model(
            model_name, config=config or GenerateConfig(), base_url=base_url, api_key=api_key,
            memoize=False, **model_args,
        ).api  # fmt: skip

    def __getattribute__(self, name: str) -> Any:
        """Ours, else the other provider's: what the base class says goes for neither."""
        own = object.__getattribute__
        if name.startswith("__") or name in LeylineAPI.__dict__ or name in own(self, "__dict__"):
            return own(self, name)
        return getattr(own(self, "_inner"), name)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> Any:
        """Ask the other provider with the view; of a recall, ask it again."""
        given = ("temperature", "top_p", "max_tokens", "seed", "extra_body")
        settings = {key: getattr(config, key) for key in given if getattr(config, key) is not None}
        turn = self._harness.begin(input, [_chat_tool(tool) for tool in tools], **settings)

        async def send(turn: NativeTurn[ChatMessage]) -> Any:
            offered = [*tools, *map(_tool_info, turn.tools)]
            asked = config.model_copy(update=turn.extra) if turn.extra else config
            result = await self._inner.generate(turn.messages, offered, tool_choice, asked)
            if isinstance(failure := _output(result), Exception):
                turn.failed(failure)
            return result

        return await turn.arun(send, _told, _made, _amended)


@modelapi("leyline")
def leyline() -> type[ModelAPI]:
    """The provider, as inspect_ai's registry wants it."""
    return LeylineAPI


def _whole(policies: Any) -> Any:
    """Policies as they were written: `-M` splits a text at its commas."""
    if not isinstance(policies, list) or not all(isinstance(one, str) for one in policies):
        return policies
    joined: list[str] = []
    for part in policies:
        if joined and re.match(r"\w+=", part):
            joined[-1] += f",{part}"
        else:
            joined.append(part)
    return joined


class _Codec:
    def read(self, native: ChatMessage) -> Message:
        message: Message = {"role": native.role, "content": _read_content(native.content)}
        if native.role == "tool":
            message["tool_call_id"] = native.tool_call_id
            if native.error:  # Providers send it instead of the content.
                message.update(content=native.error.message, is_error=True)
        if native.role == "assistant" and native.tool_calls:
            message["tool_calls"] = [_chat_call(call) for call in native.tool_calls]
        return message

    def edited(self, native: ChatMessage, message: Message) -> ChatMessage:
        copied, said = native.model_copy(), text(message)
        if getattr(native, "error", None):
            copied.error = replaced(native.error, message=said)
        elif said != text(self.read(native)):
            copied.text = said
        if getattr(native, "tool_calls", None):
            known = {call.id: call for call in native.tool_calls}
            copied.tool_calls = [_call(one, known) for one in calls(message)] or None
        return copied

    def made(self, message: Message) -> ChatMessage:
        role, said = message["role"], text(message)
        if role == "assistant":
            made = [_call(call, {}) for call in calls(message)]
            return ChatMessageAssistant(content=said, tool_calls=made or None)
        if role == "tool":
            return ChatMessageTool(content=said, tool_call_id=message["tool_call_id"])
        return (ChatMessageSystem if role == "system" else ChatMessageUser)(content=said)


def _read_content(content: Any) -> Any:
    """Text, or parts: texts as such, of other things what tells them from others; no thoughts."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if part.type != "reasoning"]
    return [
        {"type": "text", "text": part.text}
        if part.type == "text"
        else part.model_dump(exclude_none=True)
        for part in parts
    ]


def _chat_call(call: ToolCall) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    function = {"name": call.function, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _call(call: Any, known: dict[str, ToolCall]) -> ToolCall:
    """The call that a chat message has; the known one, where it has the same arguments."""
    name, arguments = called(call)
    before = known.get(call.get("id"))
    if before and _chat_call(before)["function"]["arguments"] == arguments:
        return before
    given = json.loads(arguments) if arguments else {}
    return replaced(before, arguments=given) if before else ToolCall(call["id"], name, given)


def _chat_tool(tool: ToolInfo) -> dict[str, Any]:
    shape = tool.parameters.model_dump(exclude_none=True)
    function = {"name": tool.name, "description": tool.description, "parameters": shape}
    return {"type": "function", "function": function}


def _tool_info(tool: Any) -> ToolInfo:
    function = tool["function"]
    shape = ToolParams.model_validate(function["parameters"])
    return ToolInfo(name=function["name"], description=function["description"], parameters=shape)


def _output(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


def _told(result: Any) -> Completion:
    """What a provider returns as a chat completion; its input tokens are those not cached."""
    output = _output(result)
    counted = None
    if usage := output.usage:
        cached, written = usage.input_tokens_cache_read or 0, usage.input_tokens_cache_write or 0
        counted = {
            "prompt_tokens": usage.input_tokens + cached + written,
            "completion_tokens": usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    return completion(_Codec().read(output.message), counted)


def _made(answer: Completion) -> ModelOutput:
    """The other way round, for an adapter that makes the calls itself."""
    reply = _Codec().made(answer["choices"][0]["message"])
    made = ModelOutput.from_message(reply)
    return made.model_copy(update={"usage": _usage(answer), "model": str(answer.get("model"))})


def _amended(answer: Completion, result: Any) -> Any:
    """A copy of what a provider returned, with another reply."""
    output = _output(result)
    first, *others = output.choices
    reply = _Codec().edited(first.message, answer["choices"][0]["message"])
    choices = [first.model_copy(update={"message": reply}), *others]
    made = output.model_copy(update={"choices": choices, "usage": _usage(answer)})
    return (made, *result[1:]) if isinstance(result, tuple) else made


def _usage(answer: Completion) -> ModelUsage | None:
    usage = answer.get("usage")
    if not usage:
        return None
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    new, prompt = usage.get("completion_tokens") or 0, usage["prompt_tokens"]
    return ModelUsage(
        input_tokens=prompt - cached, input_tokens_cache_read=cached,
        output_tokens=new, total_tokens=prompt + new,
    )  # fmt: skip
