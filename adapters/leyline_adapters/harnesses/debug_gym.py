"""debug-gym 1.x: an LLM around one of its LLMs; every call of it is a turn.

An agent named by its path in a debug-gym configuration:

    agent:
      type: leyline_adapters.harnesses.debug_gym.LeylineAgent
      leyline: {policies: "truncate_older_than:n=2,max_chars=200"}

`managed` makes one of any agent class; in Python it is also `BaseAgent(args, llm=LeylineLLM(llm,
policies=...))`. The agent builds its messages anew from its own history at each step. Only what is
sent is edited, before debug-gym trims it to the context; the trajectory keeps every observation,
and as each step's `prompt` what was really sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Unpack, cast

from leyline_adapters.anthropic import blocks
from leyline_adapters.anthropic.blocks import is_thinking
from leyline_adapters.harnesses.configured import configured
from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion, missing
from leyline_agent import response as reading
from leyline_agent.adapter import Adapter, CallingAdapter, Request
from leyline_agent.errors import AdapterError
from leyline_agent.message import Message
from leyline_agent.policy import PolicyLike
from leyline_agent.readers.anthropic_blocks import has_blocks, split
from leyline_agent.session import Session
from leyline_agent.settings import SessionOptions
from leyline_agent.wrapping.exchange import AsItCame, Exchange
from leyline_agent.wrapping.instrument import install
from leyline_agent.wrapping.scope import entered

try:
    from debug_gym.agents.base_agent import BaseAgent
    from debug_gym.agents.froggy_agent import FroggyAgent
    from debug_gym.llms.anthropic import AnthropicLLM
    from debug_gym.llms.base import TokenUsage
    from debug_gym.llms.openai import OpenAILLM
except ImportError as error:
    raise missing("debug-gym", "debug-gym==1.3.0", error) from error

__all__ = ["LeylineAgent", "LeylineFroggyAgent", "LeylineLLM", "managed"]


class _Codec:
    """debug-gym's messages are chat messages, but for its Anthropic LLM's, which hold blocks."""

    def __init__(self, llm: Any) -> None:
        self._is_anthropic = isinstance(llm, AnthropicLLM)

    def read(self, native: Message) -> Message:
        made = list(split(native, "messages"))
        return made[0] if len(made) == 1 else native  # debug-gym makes one call a message.

    def edited(self, native: Message, message: Message) -> Message:
        if not has_blocks(native):
            return message
        thinking = [block for block in native["content"] if is_thinking(block)]
        return {**native, "content": [*thinking, *blocks.made(message)]}

    def made(self, message: Message) -> Message:
        if not self._is_anthropic:
            return message
        role = "assistant" if message["role"] == "assistant" else "user"
        return {"role": role, "content": blocks.made(message)}


class LeylineLLM:
    """An LLM of debug-gym's whose requests policies edit. All else is the inner LLM's.

    Args:
        llm: the LLM to put policies around.
        policies, adapter: as for `leyline.Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of its sessions.

    Attributes:
        leyline: the last `sessions`, with their receipts, and in `bypassed` the calls that went
            out unedited and why.

    Raises:
        LeylineError: a setting does not fit.
        AdapterError: the adapter makes the calls itself, which the LLM does not allow.
    """

    def __init__(
        self,
        llm: Any,
        policies: PolicyLike | None = None,
        adapter: Adapter | str | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        self._llm = llm
        self._harness = Harness("debug-gym", _Codec(llm), policies, adapter, journal, options)
        self.leyline = self._harness.leyline

    def __getattr__(self, name: str) -> Any:
        if "_llm" not in vars(self):  # While it is copied or unpickled.
            raise AttributeError(name)
        return getattr(self._llm, name)

    def __call__(
        self, messages: list[Message], tools: Sequence[Any] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """The inner LLM's response to the edited messages."""
        self._check()
        config = self._llm.config
        given = {**config.generate_kwargs, **self._llm.runtime_generate_kwargs, **kwargs}
        declared = [_declared(tool) for tool in tools] if tools else None
        turn = self._harness.begin(messages, declared, model=config.model, **given)
        call = _Call(self._llm, tools, args, kwargs, turn)
        return turn.run(call.send, call.told, call.made, call.amended)

    def _check(self) -> None:
        adapter = self.leyline.adapter
        if isinstance(adapter, CallingAdapter) and not isinstance(self._llm, OpenAILLM):
            raise AdapterError(
                f"adapter {adapter.name!r} makes the calls itself, which only stands in for "
                f"debug-gym's OpenAI LLMs, not for {type(self._llm).__name__}"
            )


def managed(agent: type[Any]) -> type[Any]:
    """The agent class with policies around its LLM.

    They come from `leyline` in the agent's arguments: policies, adapter, journal and the sessions'
    options, by name; what is not there is looked for in LEYLINE_POLICIES, LEYLINE_ADAPTER and
    LEYLINE_JOURNAL.
    """

    class Managed(agent):
        def __init__(self, agent_args: Any = None, llm: Any = None, logger: Any = None) -> None:
            super().__init__(agent_args, llm, logger)
            self.llm = LeylineLLM(llm, **configured(self.args.get("leyline"), "agent.leyline"))

    Managed.__name__ = Managed.__qualname__ = f"Leyline{agent.__name__}"
    Managed.__doc__ = f"{agent.__name__} with policies around its LLM; see `managed`."
    return Managed


LeylineAgent = managed(BaseAgent)
LeylineFroggyAgent = managed(FroggyAgent)


@dataclass
class _Call:
    """One call of the agent's LLM: what it was called with, and what its client answered."""

    llm: Any
    tools: Sequence[Any] | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    turn: NativeTurn[Message]
    heard: Any = None

    def send(self, turn: NativeTurn[Message]) -> Any:
        """Call the inner LLM, with what the session and its adapter add."""
        return self._asked(_Listening(self))

    def made(self, answer: Completion) -> Any:
        """What the inner LLM makes of an engine's answer."""
        return self._asked(_Listening(self, answer))

    def amended(self, answer: Completion, response: Any) -> Any:
        """The response with the tokens of all calls. Of a reply debug-gym takes one tool call; what
        is not hidden is no recall, unless an engine's answer has it beside others.
        """
        if self.turn.caller:
            return self.made(answer)
        if usage := reading.usage(answer):
            response.token_usage = TokenUsage(usage["prompt_tokens"], usage["completion_tokens"])
        return response

    def told(self, response: Any) -> Completion:
        """The reply as the agent will send it back, with the usage as the provider counted it."""
        usage = reading.usage(self.heard)
        counted = response.token_usage
        if usage is None and counted is not None:
            usage = {"prompt_tokens": counted.prompt, "completion_tokens": counted.response}
        if self.tools is None:  # An agent that reads calls out of the text.
            message = {"role": "assistant", "content": response.response}
        else:
            message = _Codec(self.llm).read(self.llm.convert_response_to_message(response))
        return completion(message, usage)

    def _asked(self, scope: _Listening) -> Any:
        turn = self.turn
        added = {key: turn.extra[key] for key in ("extra_body",) if key in turn.extra}
        tools = [*(self.tools or ()), *map(_as_tool, turn.tools)] if turn.tools else self.tools
        install()
        with entered(scope):
            return self.llm(turn.messages, tools, *self.args, **{**self.kwargs, **added})


class _Listening:
    """A scope around an LLM's call: hears what its client answered, or answers in its place."""

    reached = False
    session: Session | None = None

    def __init__(self, call: _Call, answer: Completion | None = None) -> None:
        self._call = call
        self._answer = answer

    def exchange(self, request: Request) -> Exchange:
        """Take up a request of the client's."""
        return _Heard(request, self._call, self._answer)


class _Heard(AsItCame):
    """One request of an LLM's client, answered by it, or with the answer of an engine."""

    def __init__(self, request: Request, call: _Call, answer: Completion | None) -> None:
        self.request = request
        # Of what answers in the client's place only `complete` is asked.
        self.caller = None if answer is None else cast(CallingAdapter, self)
        self._call = call
        self._answer = answer

    def complete(self, request: Request) -> dict[str, Any]:
        """The engine's answer."""
        return dict(self._answer or {})

    def answered(self, response: Any) -> None:
        """Keep the response: an LLM drops the provider's count of cached tokens."""
        self._call.heard = response

    def failed(self, error: BaseException | str) -> None:
        """Nothing to do: the LLM may try again."""


def _declared(tool: Any) -> dict[str, Any]:
    """An environment's tool in chat form, whatever the LLM makes of it."""
    parameters = {"type": "object", "properties": tool.arguments}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _as_tool(declared: Mapping[str, Any]) -> SimpleNamespace:
    """A tool of the session's, as debug-gym's LLMs declare tools."""
    function = declared["function"]
    return SimpleNamespace(
        name=function["name"],
        description=function.get("description", ""),
        arguments=(function.get("parameters") or {}).get("properties") or {},
    )
