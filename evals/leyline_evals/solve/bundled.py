"""The bundled engine in this process: the calls of parallel episodes are computed together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from importlib.metadata import version
from types import TracebackType

import torch

from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent._version import __version__
from leyline_agent.adapter import Request
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.testing.model import Reply
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.backend import BUNDLED, Channel, ModelConfig
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.tally import Heard

__all__ = ["Bundled"]


class Bundled:
    """A backend over one engine. Each episode is a tenant of its own.

    Args:
        service: the chat service.
    """

    def __init__(self, service: ChatService) -> None:
        self._service = service

    @classmethod
    def load(cls, model: ModelConfig, workers: int) -> Bundled:
        """Load the model that `bundled/NAME` names, the embedded one for `bundled` alone.

        Raises:
            EngineError: it cannot be fetched or served.
        """
        name = model.name.removeprefix(BUNDLED).removeprefix("/") or DEFAULT
        config = EngineConfig(kv_bytes=int(model.kv_gib * 2**30), max_batch=max(16, workers))
        engine = Engine.load(resolve(name), config)
        if engine.model is None:
            raise EvalError(f"the engine was loaded without {name}")
        return cls(ChatService(engine, name, engine.model.tokenizer))

    def __enter__(self) -> Bundled:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The engine goes with its last reference."""

    def check(self, mechanism: Mechanism) -> None:
        """The engine does what every mechanism asks; receipts tell where it could not."""

    def open(self, mechanism: Mechanism, tenant: str, script: Sequence[Reply]) -> Channel:
        """A tenant for the episode; without a prefix cache, one for each call."""
        if mechanism is Mechanism.PLAIN:
            calls = itertools.count()
            return Channel(None, lambda request: self._told(request, f"{tenant} {next(calls)}"))
        if not mechanism.declares:
            return Channel(None, lambda request: self._told(request, tenant))
        adapter = BundledAdapter(self._service, tenant)
        return Channel(adapter, lambda request: Heard(adapter.complete(request)))

    def versions(self) -> dict[str, str]:
        """The engine, its libraries, and what it computes with."""
        loaded = self._service.engine.model
        assert loaded is not None
        return {
            "bundled": __version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "model": self._service.name,
            "dtype": str(loaded.dtype).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
        }

    def _told(self, request: Request, tenant: str) -> Heard:
        """A call whose session is not told of: only its first token's time is read here."""
        answer = BundledAdapter(self._service, tenant).complete(request)
        return Heard(answer, answer["leyline"]["ttft_ms"])
