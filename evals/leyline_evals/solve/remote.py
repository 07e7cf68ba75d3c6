"""Models elsewhere: any that litellm knows, any OpenAI-compatible server, a `leyline serve`.

Replies are streamed, so that the first token's time is measured here, the same way in every arm.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from leyline_agent.adapter import Adapter, CallingAdapter, Request, adapter_kind
from leyline_agent.directive import Mode
from leyline_agent.errors import ContextOverflow
from leyline_agent.response import as_dict
from leyline_agent.response import usage as told_usage
from leyline_agent.testing.model import Reply
from leyline_agent.usage import read
from leyline_agent.wrapping.streams import Assembly
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.backend import Channel, ModelConfig
from leyline_evals.solve.episode import Call
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.tally import Heard

__all__ = ["Remote"]

ATTEMPTS = 4
SALT = "cache_salt"
TENANT = "tenant"

Chunks = Callable[[Request], Iterator[Any]]


class Remote:
    """A backend that calls a provider or a server.

    Args:
        model: which, and through what.

    Raises:
        AdapterError: there is no such adapter.
        EvalError: the settings do not fit.
    """

    def __init__(self, model: ModelConfig) -> None:
        self._model = model
        self._kind = None if model.adapter == "openai" else adapter_kind(model.adapter)
        self._plain = model.plain or {"http": TENANT, "vllm": SALT}.get(model.adapter)
        if self._plain == TENANT and model.adapter != "http":
            raise EvalError("--plain tenant is for --adapter http: other servers know no tenants")

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Each episode closes what it opened."""

    def check(self, mechanism: Mechanism) -> None:
        """Raise an EvalError where this mechanism cannot be had, with what to do."""
        name = self._model.name
        if mechanism is Mechanism.PLAIN and self._plain is None:
            raise EvalError(
                f"mechanism plain: the prefix cache of {name} cannot be got around. Leave plain "
                "out of --mechanisms, or say with --plain which field of the body the server at "
                "--base-url knows: cache_salt (vLLM) or cache_prompt (llama.cpp)"
            )
        if not mechanism.declares:
            return
        if self._kind is None:
            raise EvalError(
                f"mechanism {mechanism.value}: {name} takes no edits. Choose from --mechanisms "
                "plain,prefix_cache, or name what speaks to its server: --adapter http for a "
                "leyline serve"
            )
        can = self._adapter("").capabilities.modes
        if Mode(mechanism.value) not in can:
            modes = ", ".join(sorted(mode.value for mode in can))
            raise EvalError(
                f"mechanism {mechanism.value}: adapter {self._model.adapter} carries out {modes} "
                "alone; leave it out of --mechanisms"
            )

    def open(self, mechanism: Mechanism, tenant: str, script: Sequence[Reply]) -> Channel:
        """A way to the model for one episode, a tenant of its own where the server has them."""
        if self._kind is None:
            return Channel(None, self._around(mechanism, _litellm(self._model), tenant))
        adapter = self._adapter(tenant)
        if not isinstance(adapter, CallingAdapter):
            raise EvalError(f"--adapter {self._model.adapter} makes no calls of its own")
        close = getattr(adapter, "close", lambda: None)
        if mechanism is Mechanism.PLAIN and self._plain == TENANT:
            return Channel(None, self._each_a_tenant(tenant), close)
        call = self._around(mechanism, adapter.stream, tenant)
        return Channel(adapter if mechanism.declares else None, call, close)

    def versions(self) -> dict[str, str]:
        """The libraries that make the calls, and where they go."""
        found = {"model": self._model.name, "adapter": self._model.adapter}
        if self._model.base_url:
            found["base_url"] = self._model.base_url
        for package in ("litellm", "httpx"):
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def _adapter(self, tenant: str) -> Adapter:
        assert self._kind is not None
        key = os.environ.get("LEYLINE_API_KEY")
        if not key and self._model.adapter == "http":
            key = f"eval-{hashlib.sha256(tenant.encode()).hexdigest()[:24]}"
        return self._kind(self._model.base_url, key, model=self._model.name)

    def _around(self, mechanism: Mechanism, chunks: Chunks, tenant: str) -> Call:
        """Calls through `chunks`; with what gets around the cache where none is wanted."""
        if mechanism is not Mechanism.PLAIN:
            return lambda request: self._heard(chunks, request)
        number = itertools.count()

        def call(request: Request) -> Heard:
            salt = hashlib.sha256(f"{tenant} {next(number)}".encode()).hexdigest()
            field = {SALT: salt} if self._plain == SALT else {"cache_prompt": False}
            body = {**(request.get("extra_body") or {}), **field}
            return _uncached(self._heard(chunks, {**request, "extra_body": body}))

        return call

    def _each_a_tenant(self, tenant: str) -> Call:
        number = itertools.count()

        def call(request: Request) -> Heard:
            adapter = self._adapter(f"{tenant} {next(number)}")
            assert isinstance(adapter, CallingAdapter)
            try:
                return _uncached(self._heard(adapter.stream, request))
            finally:
                getattr(adapter, "close", lambda: None)()

        return call

    def _heard(self, chunks: Chunks, request: Request) -> Heard:
        assembly, first = Assembly(), None
        asked = {**request, "stream_options": {"include_usage": True}}
        started = time.perf_counter()
        for chunk in chunks(asked):
            assembly.add(chunk)
            if first is None and _speaks(chunk):
                first = (time.perf_counter() - started) * 1e3
        response = assembly.response()
        if response is None:
            raise EvalError("the server sent no reply")
        return Heard(response, first, self._cost(response))

    def _cost(self, response: Any) -> float | None:
        """Dollars as litellm's price list has them; None for models it does not know."""
        counted = read(told_usage(response))
        if counted is None or self._kind is not None or self._model.base_url:
            return None
        import litellm

        try:
            prompt, reply = litellm.cost_per_token(
                model=self._model.name,
                prompt_tokens=counted.prompt,
                completion_tokens=counted.completion or 0,
                cache_read_input_tokens=counted.cache_read or 0,
                cache_creation_input_tokens=counted.cache_written or 0,
            )
        except Exception:  # Whatever litellm raises for a model without a price.
            return None
        return float(prompt + reply)


def _speaks(chunk: Any) -> bool:
    """Whether a chunk has some of the reply in it; the first has a role alone."""
    for choice in (as_dict(chunk) or {}).get("choices") or ():
        delta = choice.get("delta") or {}
        if any(delta.get(key) for key in ("content", "tool_calls", "reasoning_content")):
            return True
    return False


def _uncached(heard: Heard) -> Heard:
    """What was heard, if nothing of it came from a cache."""
    counted = read(told_usage(heard.response))
    if counted is not None and counted.cache_read:
        raise EvalError(
            f"mechanism plain: {counted.cache_read} tokens of a prompt came from the server's "
            "prefix cache. It knows another way around it (--plain), or none: leave plain out"
        )
    return heard


def _litellm(model: ModelConfig) -> Chunks:
    """Streams through litellm, which is imported at the first call."""
    where: dict[str, Any] = {"model": model.name}
    if model.base_url is not None:
        url = model.base_url.rstrip("/").removesuffix("/v1")
        key = os.environ.get("LEYLINE_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"
        where = {"model": f"openai/{model.name}", "api_base": f"{url}/v1", "api_key": key}

    def chunks(request: Request) -> Iterator[Any]:
        import litellm

        litellm.suppress_debug_info = True
        try:
            yield from litellm.completion(**where, **request, stream=True, num_retries=ATTEMPTS - 1)
        except litellm.ContextWindowExceededError as error:
            raise ContextOverflow(str(error)) from error

    return chunks
