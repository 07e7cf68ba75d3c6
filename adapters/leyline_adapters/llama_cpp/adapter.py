"""llama.cpp in this process as an adapter.

    adapter = LlamaCppAdapter.load("model.gguf", cells=16_384)

It serves chat completions as the bundled engine does, through the same service: rendering,
lowering, versions, retries and streams are that one's, only the cells are llama.cpp's.
"""

from __future__ import annotations

from pathlib import Path

from leyline_adapters.bundled.serving import ServiceAdapter
from leyline_adapters.llama_cpp.binding import LlamaModel
from leyline_adapters.llama_cpp.host import HostConfig, LlamaHost
from leyline_adapters.llama_cpp.tokenizer import LlamaTokenizer
from leyline_agent.adapter import Capabilities
from leyline_agent.directive import Mode
from leyline_agent.errors import UnsupportedModel
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.serving.render import ChatRenderer

__all__ = ["LlamaCppAdapter"]

_CAPABILITIES = Capabilities(
    modes=frozenset(Mode), repair="boundary", edit_ahead=True, directives=True, receipts=True
)


class LlamaCppAdapter(ServiceAdapter):
    """Takes the calls of a wrapped loop over and has llama.cpp answer them.

    Close it, or use it as a context manager, to give a model's memory back before the process ends.

    Args:
        service: a chat service over a `LlamaHost`; None for one with the embedded model.
        tenant: whose canonical KV may be shared.
    """

    name = "llama_cpp"

    def __init__(self, service: ChatService | None = None, tenant: str = "") -> None:
        self._owns = service is None
        super().__init__(service or _service(DEFAULT), tenant, "llama.cpp")

    @classmethod
    def load(
        cls,
        model: str | Path = DEFAULT,
        *,
        tenant: str = "",
        config: HostConfig | None = None,
        cells: int | None = None,
        threads: int | None = None,
        kv_type: str = "f16",
    ) -> LlamaCppAdapter:
        """Load a GGUF file, or a known model by its name.

        Args:
            model: the file, or a name of Leyline's own model store.
            tenant: whose canonical KV may be shared.
            config: how much at once, and what may strengthen a mode.
            cells: tokens that are held at once, of all sessions together; None for the model's own
                context length, but no more than 8,192. Every splice costs time in proportion.
            threads: None for every core that this process may use.
            kv_type: how keys and values are stored: "f16", "bf16", "f32" or "q8_0", which cannot
                be spliced.

        Raises:
            AdapterError: llama-cpp-python is not installed.
            EngineError: the model cannot be fetched or served, or an argument is none of those.
        """
        service = _service(model, config, cells=cells, threads=threads, kv_type=kv_type)
        adapter = cls(service, tenant)
        adapter._owns = True
        return adapter

    def close(self) -> None:
        """Give the memory of the model back, if this adapter loaded it; calls raise EngineError.

        Waits for what is being computed.
        """
        host = self.service.engine
        if self._owns and isinstance(host, LlamaHost) and isinstance(host.model, LlamaModel):
            self._owns = False
            with self.service.exclusive():
                host.model.close()

    def __enter__(self) -> LlamaCppAdapter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def capabilities(self) -> Capabilities:
        """Every mode; REPAIR is the boundary window."""
        return _CAPABILITIES


def _service(
    model: str | Path,
    config: HostConfig | None = None,
    *,
    cells: int | None = None,
    threads: int | None = None,
    kv_type: str = "f16",
) -> ChatService:
    config = config or HostConfig()
    path = resolve(model)
    if not isinstance(path, Path):
        raise UnsupportedModel(f"{model} is on the hub; llama.cpp reads GGUF files: download one")
    loaded = LlamaModel(
        path,
        cells=cells,
        sequences=2 * config.tapes,
        chunk=config.chunk,
        threads=threads,
        kv_type=kv_type,
    )
    tokenizer = LlamaTokenizer(loaded)
    chat = ChatRenderer(tokenizer)
    chat.stop_ids |= tokenizer.end_ids
    return ChatService(LlamaHost(loaded, config), str(model), tokenizer, chat)
