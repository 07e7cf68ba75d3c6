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
from leyline_evals.solve.episode import Call
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.tally import Heard

__all__ = ["Bundled"]


class Bundled:
    """A backend over one engine. Each episode is a tenant of its own, gone when it ends.

    Args:
        engine: it computes; what other episodes leave behind takes no room from those that run.
        name: the model's.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        if engine.model is None:
            raise EvalError(f"the engine was loaded without {name}")
        self._engine = engine
        self._model = engine.model
        self._service = ChatService(engine, name, engine.model.tokenizer)

    @classmethod
    def load(cls, model: ModelConfig, workers: int) -> Bundled:
        """Load the model that `bundled/NAME` names, the embedded one for `bundled` alone.

        Raises:
            EngineError: it cannot be fetched or served.
        """
        name = model.name.removeprefix(BUNDLED).removeprefix("/") or DEFAULT
        config = EngineConfig(kv_bytes=int(model.kv_gib * 2**30), max_batch=max(16, workers))
        return cls(Engine.load(resolve(name), config), name)

    def __enter__(self) -> Bundled:
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
        if not mechanism.declares:
            return Channel(
                None, lambda request: self._told(request, tenant), lambda: self._drop(tenant)
            )
        adapter = BundledAdapter(self._service, tenant)
        return Channel(
            adapter, lambda request: Heard(adapter.complete(request)), lambda: self._drop(tenant)
        )

    def versions(self) -> dict[str, str]:
        """The engine, its libraries, and what it computes with."""
        return {
            "bundled": __version__,
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "model": self._service.name,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "threads": str(torch.get_num_threads()),
        }

    def _told(self, request: Request, tenant: str) -> Heard:
        """A call whose session is not told of: only its first token's time is read here."""
        answer = BundledAdapter(self._service, tenant).complete(request)
        return Heard(answer, answer["leyline"]["ttft_ms"])

    def _uncached(self, tenant: str) -> Call:
        number = itertools.count()

        def call(request: Request) -> Heard:
            alone = f"{tenant} {next(number)}"
            try:
                return self._told(request, alone)
            finally:
                self._drop(alone)

        return call

    def _drop(self, tenant: str) -> None:
        """Give up what a tenant holds."""
        with self._service.exclusive():
            for session in self._service.sessions:
                if session.tenant == tenant:
                    self._service.sessions.drop(tenant, session.id)
            self._engine.forest.drop(tenant)
