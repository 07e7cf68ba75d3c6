"""The real llama.cpp with the embedded model, in an environment of its own: make test-llama-cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter
from leyline_adapters.llama_cpp.binding import LlamaModel
from leyline_adapters.llama_cpp.host import HostConfig, LlamaHost
from leyline_adapters.llama_cpp.tokenizer import LlamaTokenizer
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.render import ChatRenderer

CELLS = 4096
CONFIG = HostConfig(tapes=8)


@pytest.fixture(scope="session")
def model(embedded_gguf: Path) -> Iterator[LlamaModel]:
    """The embedded model with one context."""
    loaded = LlamaModel(embedded_gguf, cells=CELLS, sequences=2 * CONFIG.tapes, threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def tokenizer(model: LlamaModel) -> LlamaTokenizer:
    """Its tokenizer."""
    return LlamaTokenizer(model)


@pytest.fixture
def host(model: LlamaModel) -> LlamaHost:
    """A host over empty cells."""
    model.lib.llama_memory_clear(model.memory, False)
    return LlamaHost(model, CONFIG)


@pytest.fixture
def service(host: LlamaHost, tokenizer: LlamaTokenizer) -> ChatService:
    """A chat service over that host."""
    chat = ChatRenderer(tokenizer)
    chat.stop_ids |= tokenizer.end_ids
    return ChatService(host, "smollm2-135m", tokenizer, chat)


@pytest.fixture
def adapter(service: ChatService) -> LlamaCppAdapter:
    """An adapter of that service."""
    return LlamaCppAdapter(service)


@pytest.fixture
def opened(service: ChatService) -> Callable[[str], LlamaCppAdapter]:
    """Adapters of that service, by tenant."""
    return lambda tenant: LlamaCppAdapter(service, tenant)
