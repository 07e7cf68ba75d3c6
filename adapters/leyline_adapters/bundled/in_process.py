"""The bundled engine in this process."""

from __future__ import annotations

from pathlib import Path

from leyline_adapters.bundled.body import CAPABILITIES
from leyline_adapters.bundled.serving import ServiceAdapter
from leyline_agent.adapter import Capabilities
from leyline_agent.errors import AdapterError
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.embedded import DEFAULT, resolve

__all__ = ["BundledAdapter"]


class BundledAdapter(ServiceAdapter):
    """Takes the calls of a wrapped loop over and serves them here.

    Args:
        service: a chat service; `BundledAdapter.load()` makes one.
        tenant: whose canonical KV may be shared.
    """

    name = "bundled"

    def __init__(self, service: ChatService | None = None, tenant: str = "") -> None:
        made = service or _service(DEFAULT, EngineConfig())
        super().__init__(made, tenant, "the bundled engine")

    @classmethod
    def load(
        cls, model: str | Path = DEFAULT, config: EngineConfig | None = None, tenant: str = ""
    ) -> BundledAdapter:
        """Load a model by name, folder, hub name or GGUF file.

        Raises:
            EngineError: the model cannot be fetched or served.
        """
        return cls(_service(model, config or EngineConfig()), tenant)

    @property
    def capabilities(self) -> Capabilities:
        """Every mode, with the full repair set."""
        return CAPABILITIES


def _service(model: str | Path, config: EngineConfig) -> ChatService:
    engine = Engine.load(resolve(model), config)
    loaded = engine.model
    if loaded is None:
        raise AdapterError("the engine was loaded without a model")
    return ChatService(engine, str(model), loaded.tokenizer)
