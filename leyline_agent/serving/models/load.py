"""Loading models: a folder, a hub name or a GGUF file becomes a model the engine can run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from leyline_agent.errors import UnsupportedModel
from leyline_agent.serving.models.glue import ATTENTION, register
from leyline_agent.serving.models.probe import ModelFacts, probe

__all__ = ["LoadedModel", "load_model", "load_tokenizer", "pick_dtype"]

logger = logging.getLogger("leyline.serving")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class LoadedModel:
    """A model, its tokenizer and what was measured of it.

    Attributes:
        name: what to call it in answers.
        model: a transformers causal LM with the engine's attention.
        tokenizer: its fast tokenizer.
        facts: KV shapes and whether cached keys can be moved.
        max_len: its context length in tokens.
        dtype: of weights and KV.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    facts: ModelFacts
    max_len: int
    dtype: torch.dtype


def load_model(source: str | Path, *, dtype: str = "auto", name: str | None = None) -> LoadedModel:
    """Load a causal LM for the engine.

    Args:
        source: a folder, a .gguf file, or a hub name.
        dtype: "auto" (bfloat16 where the machine computes in it), "float32", "bfloat16", "float16".
        name: what to call it; default from the source.

    Raises:
        UnsupportedModel: not a causal LM that transformers can read, a damaged file, or layers
            the engine cannot serve.
    """
    from transformers import AutoModelForCausalLM

    register()
    where, options = _locate(source)
    kind = pick_dtype(dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            where, dtype=kind, attn_implementation=ATTENTION, **_weights_options(options)
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UnsupportedModel(f"cannot load {source}: {error}") from error
    model.eval().requires_grad_(False)
    facts = probe(model)
    if facts.refusal is not None:
        logger.warning("%s: edits will re-prefill: %s", source, facts.detail)
    config = model.config.get_text_config()
    return LoadedModel(
        name=name or Path(str(source)).stem,
        model=model,
        tokenizer=load_tokenizer(source),
        facts=facts,
        max_len=int(getattr(config, "max_position_embeddings", 2048)),
        dtype=kind,
    )


def load_tokenizer(source: str | Path) -> Any:
    """The fast tokenizer of a folder, hub name or GGUF file.

    Raises:
        UnsupportedModel: there is none that can be read.
    """
    from transformers import AutoTokenizer

    where, options = _locate(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UnsupportedModel(f"cannot read a tokenizer from {source}: {error}") from error
    if not tokenizer.is_fast:
        raise UnsupportedModel(f"{source}: only fast tokenizers (tokenizer.json) are supported")
    return tokenizer


def pick_dtype(dtype: str) -> torch.dtype:
    """The torch dtype for a name; "auto" is bfloat16 where the CPU has instructions for it."""
    if dtype == "auto":
        fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise UnsupportedModel(f"unknown dtype {dtype!r}; one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _locate(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Where transformers should look, and the options that make it read a GGUF file."""
    path = Path(source).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != GGUF_MAGIC:
                raise UnsupportedModel(f"{path} is not a GGUF file; fetch it again")
        return str(path.parent), {"gguf_file": path.name}
    if path.suffix == ".gguf":
        raise UnsupportedModel(f"{path} does not exist")
    return str(source), {}


def _weights_options(options: dict[str, Any]) -> dict[str, Any]:
    if "gguf_file" not in options:
        return options
    from transformers import GgufConfig

    # Dense weights: packed ones are several times slower to prefill with.
    return {**options, "quantization_config": GgufConfig(dequantize=True)}
