"""Loading models: a folder, a hub name or a GGUF file becomes a model the engine can run."""

from __future__ import annotations

import hashlib
import logging
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from leyline_agent.errors import UnsupportedModel
from leyline_agent.serving.models.embedded import data_dir
from leyline_agent.serving.models.glue import ATTENTION, register
from leyline_agent.serving.models.mla import cache_latents
from leyline_agent.serving.models.probe import ModelFacts, probe, text_config
from leyline_agent.serving.models.selfcheck import check_seam

__all__ = [
    "LoadedModel",
    "load_model",
    "load_tokenizer",
    "pick_device",
    "pick_dtype",
    "unpacked",
]

logger = logging.getLogger("leyline.serving")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GGUF_MAGIC = b"GGUF"
# What transformers' readers raise when they are given a damaged file.
_DAMAGED = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    OverflowError,
    RuntimeError,
    struct.error,
    SafetensorError,
)


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

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.model.parameters()).device


def load_model(
    source: str | Path, *, dtype: str = "auto", device: str = "auto", name: str | None = None
) -> LoadedModel:
    """Load a causal LM for the engine.

    Args:
        source: a folder, a .gguf file, or a hub name.
        dtype: "auto" (bfloat16 where the device computes in it), "float32", "bfloat16", "float16".
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".
        name: what to call it; default from the source.

    Raises:
        UnsupportedModel: not a causal LM that transformers can read, a damaged file, or layers
            the engine cannot serve.
    """
    register()
    where = pick_device(device)
    kind = pick_dtype(dtype, where)
    model, tokenizer = _dense(source, kind) if _is_gguf(source) else _load(source, {}, kind)
    model.to(where).eval().requires_grad_(False)
    cache_latents(model)
    facts = probe(model)
    check_seam(model)
    if facts.refusal is not None:
        logger.warning("%s: edits will re-prefill: %s", source, facts.detail)
    return LoadedModel(
        name=name or Path(str(source)).stem,
        model=model,
        tokenizer=tokenizer,
        facts=facts,
        max_len=_max_len(text_config(model)),
        dtype=kind,
    )


def _max_len(config: Any) -> int:
    """The context length; for LongRoPE what it has before it switches frequencies."""
    longest = int(getattr(config, "max_position_embeddings", 2048))
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        return min(longest, int(rope.get("original_max_position_embeddings") or longest))
    return longest


def load_tokenizer(source: str | Path) -> Any:
    """The fast tokenizer of a folder, hub name or GGUF file.

    Raises:
        UnsupportedModel: there is none that can be read.
    """
    if not _is_gguf(source):
        return _tokenizer(source, {})
    path = Path(source).expanduser()
    folder = _dense_folder(path, "tokenizer")
    if not folder.is_dir():
        _publish(folder, [_tokenizer(path.parent, {"gguf_file": path.name})])
    return _tokenizer(folder, {})


def pick_device(device: str) -> torch.device:
    """The torch device for a name; "auto" is a GPU where torch sees one.

    Raises:
        UnsupportedModel: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise UnsupportedModel(f"unknown device {device!r}; auto, cpu, cuda or cuda:1") from error
    seen = torch.cuda.device_count() if found.type == "cuda" else 1
    if found.type not in ("cpu", "cuda") or (found.index or 0) >= seen:
        raise UnsupportedModel(
            f"no device {device!r} here: torch {torch.__version__} sees a CPU and "
            f"{torch.cuda.device_count()} GPUs"
        )
    return found


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for a name; "auto" is bfloat16 where the device has instructions for it."""
    if dtype == "auto":
        fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if dtype not in DTYPES:
        raise UnsupportedModel(f"unknown dtype {dtype!r}; one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _is_gguf(source: str | Path) -> bool:
    """Whether `source` is a GGUF file. Raises UnsupportedModel for a damaged or missing one."""
    path = Path(source).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise UnsupportedModel(f"{path} is not a GGUF file; fetch it again")
        return True
    if path.suffix == ".gguf":
        raise UnsupportedModel(f"{path} does not exist")
    return False


def unpacked(source: str | Path, dtype: str = "bfloat16") -> str | Path:
    """A model as engines take it that read no GGUF: such a file as a folder, others as they are.

    Raises:
        UnsupportedModel: a damaged or missing file, or a dtype that is none.
    """
    if not _is_gguf(source):
        return source
    folder = _dense_folder(Path(source).expanduser(), dtype)
    if not folder.is_dir():
        _dense(source, pick_dtype(dtype, torch.device("cpu")))
    return folder


def _dense(path: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A GGUF file's model and tokenizer, unpacked once and kept in the data folder.

    Unpacking takes ten times as long as loading what was unpacked.
    """
    from transformers import GgufConfig

    file = Path(path).expanduser()
    folder = _dense_folder(file, str(dtype).removeprefix("torch."))
    if not folder.is_dir():
        logger.info("unpacking %s once into %s", file.name, folder)
        # Dense weights: packed ones are several times slower to prefill with.
        options = {
            "gguf_file": file.name,
            "quantization_config": GgufConfig(dequantize=True),
        }
        _publish(folder, _load(file.parent, options, dtype))
    return _load(folder, {}, dtype)


def _dense_folder(file: Path, kind: str) -> Path:
    stat = file.stat()
    identity = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    short = hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()
    return data_dir() / "dense" / f"{file.stem}-{kind}-{short}"


def _publish(folder: Path, parts: Sequence[Any]) -> None:
    """Save parts into `folder` so that it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "model"
        for part in parts:
            part.save_pretrained(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise


def _load(source: str | Path, options: dict[str, Any], dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    try:
        with _bars(Path(source).is_dir()):
            model = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, attn_implementation=ATTENTION, **options
            )
    except _DAMAGED as error:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError) and error.args == (ATTENTION,):
            why = "its architecture takes no attention function"
        told = f"cannot load {_shown(source, options)}: {why}{_cure(source, options)}"
        raise UnsupportedModel(told) from error
    file = {k: v for k, v in options.items() if k == "gguf_file"}
    return model, _tokenizer(source, file)


@contextmanager
def _bars(local: bool) -> Iterator[None]:
    """Without progress bars where the weights are here already: that takes a moment."""
    from transformers.utils import logging as bars

    if not local or not bars.is_progress_bar_enabled():
        yield
        return
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.enable_progress_bar()


def _tokenizer(source: str | Path, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except _DAMAGED as error:
        why = f"{type(error).__name__}: {error}"
        told = f"cannot read a tokenizer from {_shown(source, options)}: {why}"
        raise UnsupportedModel(told + _cure(source, options)) from error
    if not tokenizer.is_fast:
        raise UnsupportedModel(f"{source}: only fast tokenizers (tokenizer.json) are supported")
    return tokenizer


def _shown(source: str | Path, options: dict[str, Any]) -> str:
    """What was being read, for an error message."""
    file = options.get("gguf_file")
    return str(Path(source, file) if file else source)


def _cure(source: str | Path, options: dict[str, Any]) -> str:
    """What to do about a single file that cannot be read, for an error message."""
    if "gguf_file" not in options:
        return ""
    size = Path(source, options["gguf_file"]).stat().st_size
    return (
        f". The file has {size:,} bytes; if that is not what its source says, it was fetched in "
        "part: fetch it again"
    )
