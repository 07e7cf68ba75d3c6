"""What a load is put on: an engine that all conversations of an arm share."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from leyline_adapters.bundled.body import as_body
from leyline_adapters.bundled.http import HttpAdapter
from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent.adapter import Adapter, CallingAdapter, Request, adapter_kind
from leyline_agent.message import Message
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.wire import ChatRequest
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError

__all__ = ["Answer", "Counted", "Served", "Target", "Targets", "counted", "in_process", "named"]

# The chunks of a stream hold nothing else that a receipt is read from.
_SAID_ONCE = ("leyline", "usage", "kv_transfer_params")


class Answer(NamedTuple):
    """What came back.

    Attributes:
        response: a response without its choices: where the receipt is.
        ttft_ms: to the first chunk of the reply; None where no model ran.
    """

    response: dict[str, Any]
    ttft_ms: float | None


class Target(Protocol):
    """An engine, for one arm."""

    @property
    def adapter(self) -> Adapter:
        """What the arm's sessions are told of it."""
        ...

    async def call(self, request: Request, reply: Message) -> Answer:
        """Make a call; `reply` is what was recorded."""
        ...


Targets = Callable[[Arm], Target]
"""Makes the engine of an arm: a fresh one where it can."""


class Counted:
    """An engine that counts tokens, at any length; the recorded reply counts as generated."""

    def __init__(self, service: ChatService, adapter: Adapter) -> None:
        self.adapter = adapter
        self._service = service

    async def call(self, request: Request, reply: Message) -> Answer:
        """Count one call."""
        body = ChatRequest.model_validate(as_body(request, stream=False))
        receipt, _ = self._service.recorded(body, reply)
        told = receipt.model_dump(mode="json")
        cached = {"prompt_tokens_details": {"cached_tokens": receipt.reused}}
        return Answer({"leyline": told, "usage": {"prompt_tokens": receipt.prompt, **cached}}, None)


class Served:
    """An engine that runs: replies are streamed, and `reply_tokens` of each are generated."""

    def __init__(self, carrier: CallingAdapter, adapter: Adapter, reply_tokens: int) -> None:
        self.adapter = adapter
        self._carrier = carrier
        self._more = {
            "max_tokens": reply_tokens,
            "temperature": 0.0,
            "stream_options": {"include_usage": True},
        }

    async def call(self, request: Request, reply: Message) -> Answer:
        """Make one call and wait for its end."""
        response: dict[str, Any] = {}
        first: float | None = None
        started = time.perf_counter()
        chunks = self._carrier.astream({**request, **self._more})
        async with aclosing(chunks) as stream:  # type: ignore[type-var]
            async for chunk in stream:
                if first is None and chunk.get("choices"):
                    first = (time.perf_counter() - started) * 1e3
                response |= {key: chunk[key] for key in _SAID_ONCE if chunk.get(key)}
        return Answer(response, first)


def counted(engines: Engines) -> Targets:
    """Engines that only count."""

    def make(arm: Arm) -> Target:
        service = engines.counting()
        return Counted(service, _told(BundledAdapter(service), arm))

    return make


def in_process(engines: Engines, reply_tokens: int) -> Targets:
    """The bundled engine in this process, as `leyline serve` has it."""

    def make(arm: Arm) -> Target:
        adapter = BundledAdapter(engines.served())
        return Served(adapter, _told(adapter, arm), reply_tokens)

    return make


def named(spec: str, model: str | None, reply_tokens: int) -> Targets:
    """The engine of an installed adapter: "http=http://host:8000", "vllm=...", "llama_cpp".

    "openai=URL" is any OpenAI-compatible server, which is told of no edits.

    Raises:
        AdapterError: no adapter of that name is installed, or it cannot be made.
        ReplayError: it makes no calls of its own, or what it needs is missing.
    """
    name, _, url = spec.partition("=")
    kind = HttpAdapter if name == OpenAICompatibleAdapter.name else adapter_kind(name)
    given: dict[str, Any] = {"model": model} if model and _takes_model(kind) else {}
    if name == OpenAICompatibleAdapter.name and not url:
        raise ReplayError(f"--adapter {spec}: where is the server? {name}=http://host:8000")
    carrier = kind(url, **given) if url else kind(**given)
    if not isinstance(carrier, CallingAdapter):
        raise ReplayError(f"--adapter {spec}: it makes no calls of its own; openai=URL does")
    plain = OpenAICompatibleAdapter() if name == OpenAICompatibleAdapter.name else None

    def make(arm: Arm) -> Target:
        return Served(carrier, plain or _told(carrier, arm), reply_tokens)

    return make


def _takes_model(kind: Callable[..., Any]) -> bool:
    return "model" in inspect.signature(kind).parameters


def _told(adapter: Adapter, arm: Arm) -> Adapter:
    """What the sessions of an arm are given: a prefix cache is told of no edits."""
    return adapter if arm.declares else OpenAICompatibleAdapter()
