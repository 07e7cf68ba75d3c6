"""Engines in this process: the calls of parallel episodes are computed together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from types import TracebackType

from leyline_agent._version import __version__
from leyline_agent.adapter import CallingAdapter, Request
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.testing.model import Reply
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.backend import LLAMA_CPP, Channel, ModelConfig
from leyline_evals.solve.episode import Call
from leyline_evals.solve.tally import Heard

__all__ = ["InProcess", "load"]

CONTEXT = 8192
"""Tokens that llama.cpp holds for each episode, unless told or trained for less."""
TAPES = 4
"""Sequences llama.cpp holds for each episode: its session's versions, and the prompt's."""


class InProcess:
    """A backend over one engine. Each episode is a tenant of its own, gone when it ends.

    Args:
        service: a chat service over the engine; what other episodes leave behind takes no room
            from those that run.
        kind: makes the adapter of a tenant.
        versions: what serves the model, by name.
    """

    def __init__(
        self,
        service: ChatService,
        kind: Callable[[ChatService, str], CallingAdapter],
        versions: Mapping[str, str],
    ) -> None:
        self._service = service
        self._kind = kind
        self._versions = {"model": service.name, **versions}

    def __enter__(self) -> InProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The engine goes with its last reference."""

    def open(self, mechanism: Mechanism, tenant: str, script: Sequence[Reply]) -> Channel:
        """A tenant for the episode; without a prefix cache, one for each call."""
        if mechanism is Mechanism.PLAIN:
            return Channel(None, self._uncached(tenant))
        adapter = self._kind(self._service, tenant)

        def close() -> None:
            self._service.drop(tenant)

        if not mechanism.declares:
            return Channel(None, lambda request: _told(adapter, request), close)
        return Channel(adapter, lambda request: Heard(adapter.complete(request)), close)

    def versions(self) -> dict[str, str]:
        """The engine, its libraries, and what it computes with."""
        return dict(self._versions)

    def _uncached(self, tenant: str) -> Call:
        number = itertools.count()

        def call(request: Request) -> Heard:
            alone = f"{tenant} {next(number)}"
            try:
                return _told(self._kind(self._service, alone), request)
            finally:
                self._service.drop(alone)

        return call


def load(model: ModelConfig, workers: int) -> InProcess:
    """Load the model that `bundled/NAME` or `llama_cpp/NAME` names, else the embedded one.

    Raises:
        AdapterError: llama-cpp-python is not installed.
        EngineError: it cannot be fetched or served.
    """
    engine, _, name = model.name.partition("/")
    made = _llama_cpp if engine == LLAMA_CPP else _bundled
    return made(name or DEFAULT, model, workers)


def _bundled(name: str, model: ModelConfig, workers: int) -> InProcess:
    import torch

    from leyline_adapters.bundled.in_process import BundledAdapter
    from leyline_agent.serving.engine import Engine, EngineConfig

    config = EngineConfig(kv_bytes=int(model.kv_gib * 2**30), max_batch=max(16, workers))
    engine = Engine.load(resolve(name), config)
    loaded = engine.model
    assert loaded is not None
    versions = {
        "bundled": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
    }
    return InProcess(ChatService(engine, name, loaded.tokenizer), BundledAdapter, versions)


def _llama_cpp(name: str, model: ModelConfig, workers: int) -> InProcess:
    from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter
    from leyline_adapters.llama_cpp.host import HostConfig

    config = HostConfig(max_batch=max(4, workers), tapes=max(16, TAPES * workers))
    context = model.cells or CONTEXT
    adapter = LlamaCppAdapter.load(name, config=config, cells=context * workers)
    host = adapter.service.engine
    # Other workers' cells are theirs: with more of them no episode may grow longer, or evict one.
    host.max_len = min(host.max_len, context)
    versions = {"llama_cpp": version("llama-cpp-python"), "context": str(host.max_len)}
    return InProcess(adapter.service, LlamaCppAdapter, versions)


def _told(adapter: CallingAdapter, request: Request) -> Heard:
    """A call whose session is not told of: only its first token's time is read here."""
    answer = adapter.complete(request)
    return Heard(answer, answer["leyline"]["ttft_ms"])
