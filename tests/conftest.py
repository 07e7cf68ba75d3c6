"""What the whole suite shares: recorded trajectories, the embedded model and a tiny one.

Heavy libraries are imported inside the fixtures, for tests that need none of them.
"""

from __future__ import annotations

import os
import string
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# litellm would otherwise fetch a price list when it is imported.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")

from leyline_agent.errors import ModelUnavailable
from leyline_agent.serving.models import embedded

if TYPE_CHECKING:
    from leyline_agent.serving.chat import ChatService
    from leyline_agent.serving.engine import Engine
    from leyline_agent.serving.models.load import LoadedModel

ROOT = Path(__file__).resolve().parent.parent

# Each needs an environment of its own: `make test-harnesses`, `test-llama-cpp`, `test-vllm`.
collect_ignore = ["harnesses", "llama_cpp", "vllm"]


def pytest_configure(config: pytest.Config) -> None:
    """Kernels are interpreted in the whole process, or with `-m gpu` compiled.

    Triton must be told before it is imported, and transformers imports it with the first model.
    """
    selected = str(config.getoption("markexpr"))
    if "gpu" not in selected or "not gpu" in selected:
        os.environ["TRITON_INTERPRET"] = "1"


# A real model small enough for every test: two Llama layers with random weights, float32.
TINY_KV_BYTES = 8 << 20  # some 12,000 tokens, besides a working copy of one context
TINY_MAX_LEN = 4096
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SAMPLE = """\
You are a careful programmer. The tool says: no such file or directory. Read the file again, list
the folder, run the tests. Traceback (most recent call last): error in line 12. The user asks and
the assistant answers; what the assistant said before is kept. def main(argument): return result
"""


@pytest.fixture(scope="session", autouse=True)
def journals_follow_their_schema() -> Iterator[None]:
    """Whatever a test's session writes to a journal is what docs/journal.md says."""
    from leyline_agent import journal, journal_schema

    write = journal._line

    def checked(event: dict[str, Any]) -> str:
        line = write(event)
        journal_schema.validated(line)
        return line

    journal._line = checked  # type: ignore[assignment]
    yield
    journal._line = write


@pytest.fixture(scope="session")
def trajectories_dir() -> Path:
    """The folder of recorded runs, holding `native/` and `trajectories/`; skips where absent."""
    named = os.environ.get("LEYLINE_TRAJECTORIES")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not (folder / "trajectories").is_dir():
        if named:
            pytest.fail(f"LEYLINE_TRAJECTORIES={named} holds no folder 'trajectories'")
        pytest.skip("no recorded trajectories here; LEYLINE_TRAJECTORIES can name their folder")
    return folder


@pytest.fixture(scope="session")
def embedded_gguf() -> Path:
    """The embedded model's file, fetched once; skips without a network, except in CI."""
    try:
        return embedded.fetch()
    except ModelUnavailable as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the embedded model cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model's weights and tokenizer, as `leyline serve --model` takes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    _network(len(tokenizer)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> LoadedModel:
    """The tiny model, loaded the ordinary way; its weights never change."""
    from leyline_agent.serving.models.load import load_model

    return load_model(tiny_folder, dtype="float32")


@pytest.fixture
def tiny_engine(tiny_model: LoadedModel) -> Engine:
    """A fresh engine with an empty pool."""
    from leyline_agent.serving.engine import Engine, EngineConfig

    return Engine.of(tiny_model, EngineConfig(kv_bytes=TINY_KV_BYTES))


@pytest.fixture
def tiny_service(tiny_engine: Engine, tiny_model: LoadedModel) -> ChatService:
    """A fresh chat service over a fresh engine."""
    from leyline_agent.serving.chat import ChatService

    return ChatService(tiny_engine, "tiny", tiny_model.tokenizer)


@pytest.fixture
def live_url(tiny_service: ChatService) -> Iterator[str]:
    """The address of a real server of the tiny service, on loopback."""
    import uvicorn

    from leyline_agent.serving.server import create_app

    config = uvicorn.Config(create_app(tiny_service), port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive(), "the server did not stop"


def _tokenizer() -> Any:
    """Byte-level BPE with a ChatML template that knows nothing of tools."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([_SAMPLE, string.printable], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    return tokenizer


def _network(vocabulary: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=TINY_MAX_LEN,
        tie_word_embeddings=False,
        initializer_range=0.2,  # wide, so that what is attended to matters
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return LlamaForCausalLM(config)
