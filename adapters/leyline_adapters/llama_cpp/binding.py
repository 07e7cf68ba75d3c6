"""llama-cpp-python's low-level API, and nothing but it: a model, its context, its cells.

The high-level class is of no use here: it has one sequence, hides its edits, and loads models with
extra buffer types, with which llama.cpp crashes on CPUs that have AMX.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leyline_adapters.llama_cpp.model import Array, ModelFacts, Part
from leyline_agent.errors import AdapterError, EngineError, UnsupportedModel
from leyline_agent.receipt import Reason

__all__ = ["INSTALL", "LlamaModel", "library"]

INSTALL = "pip install 'leyline-agent[llama-cpp]'"
_KV_TYPES = {"f16": 1, "f32": 0, "bf16": 30, "q8_0": 8}
_QUANTISED = frozenset({"q8_0"})
_ERROR = 4  # ggml's level; below it llama.cpp tells how it loads
_NO_ROOM = 1

logger = logging.getLogger("leyline.llama_cpp")
_callbacks: list[Any] = []  # the library calls them for as long as the process lives


def library() -> Any:
    """The module `llama_cpp`, its log handed on to ours.

    Raises:
        AdapterError: it is not installed, or cannot be loaded.
    """
    try:
        import llama_cpp
    except ImportError as error:
        raise AdapterError(
            f"llama-cpp-python is not installed here ({error}); {INSTALL} compiles it, which takes "
            "a C++ compiler and some minutes"
        ) from error
    except (OSError, RuntimeError) as error:
        raise AdapterError(f"llama-cpp-python does not load: {error}; {INSTALL}") from error
    if not _callbacks:
        _callbacks.append(llama_cpp.llama_log_callback(_logged))
        llama_cpp.llama_log_set(_callbacks[0], ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
    return llama_cpp


def _logged(level: int, text: bytes, data: Any) -> None:
    severity = logging.WARNING if level >= _ERROR else logging.DEBUG
    logger.log(severity, "%s", text.decode(errors="replace").rstrip())


class LlamaModel:
    """A GGUF file with one context: `host.Model` and `tape.Cells`. One thread at a time.

    Args:
        path: the file.
        cells: tokens that are held at once, of all sequences; None for the model's own context
            length, but no more than 8,192.
        sequences: how many.
        chunk: decode at most this many tokens at once.
        threads: None for every core that this process may use.
        kv_type: how keys and values are stored: "f16", "bf16", "f32" or "q8_0".

    Raises:
        UnsupportedModel: no GGUF file, or a model that generates no text token by token.
        EngineError: there is not memory enough, or an argument is none of those above.
    """

    def __init__(
        self,
        path: Path,
        *,
        cells: int | None = None,
        sequences: int = 32,
        chunk: int = 512,
        threads: int | None = None,
        kv_type: str = "f16",
    ) -> None:
        for name, value in (
            *(("cells", cells), ("threads", threads)),
            *(("chunk", chunk), ("sequences", sequences)),
        ):
            if value is not None and (type(value) is not int or value < 1):
                raise EngineError(f"{name} is a whole number of at least 1, not {value!r}")
        if kv_type not in _KV_TYPES:
            raise EngineError(f"kv_type {kv_type!r} is none of {', '.join(_KV_TYPES)}")
        self.lib = library()
        self.path = path
        self._model = self._loaded(path)
        trained = int(self.lib.llama_model_n_ctx_train(self._model))
        self._context = self._made(cells or min(trained, 8192), sequences, chunk, threads, kv_type)
        self.memory = self.lib.llama_get_memory(self._context)
        self.vocab = self.lib.llama_model_get_vocab(self._model)
        self.vocab_size = int(self.lib.llama_vocab_n_tokens(self.vocab))
        self.num_cells = int(self.lib.llama_n_ctx(self._context))
        self.max_len = min(trained, self.num_cells)
        self.facts = self._found(kv_type)
        self._chunk = chunk
        self._batch = self.lib.llama_batch_init(chunk, 0, 1)
        self._shifting = False  # keys are still to be rotated, with the next decode

    @property
    def cells(self) -> LlamaModel:
        """The context's cells."""
        return self

    def close(self) -> None:
        """Give the memory back. Whatever is asked of it afterwards raises EngineError."""
        if self._context:
            self.lib.llama_batch_free(self._batch)
            self.lib.llama_free(self._context)
            self.lib.llama_model_free(self._model)
            self._context = self._model = None
            self.lib = self._batch = _Closed()

    def meta(self, key: str) -> str | None:
        """A value of the file's metadata."""
        buffer = ctypes.create_string_buffer(1 << 10)
        size = self.lib.llama_model_meta_val_str(self._model, key.encode(), buffer, len(buffer))
        return buffer.value.decode(errors="replace") if size >= 0 else None

    @property
    def template(self) -> str | None:
        """The file's chat template."""
        found: bytes | None = self.lib.llama_model_chat_template(self._model, None)
        return found.decode() if found else None

    # --- loading -----------------------------------------------------------------------------

    def _loaded(self, path: Path) -> Any:
        if not path.is_file():
            raise UnsupportedModel(f"{path} is no file; llama.cpp reads GGUF files")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnsupportedModel(f"{path} is no GGUF file; convert the model")
        options = self.lib.llama_model_default_params()
        # With the extra buffer types every decode crashes on CPUs that have AMX.
        options.use_extra_bufts = False
        model = self.lib.llama_model_load_from_file(os.fsencode(path), options)
        if not model:
            raise UnsupportedModel(
                f"llama.cpp cannot load {path}; the logger leyline.llama_cpp has its reason"
            )
        if self.lib.llama_model_has_encoder(model) or self.lib.llama_model_is_diffusion(model):
            self.lib.llama_model_free(model)
            raise UnsupportedModel(f"{path}: only models that generate token by token are served")
        return model

    def _made(
        self, cells: int, sequences: int, chunk: int, threads: int | None, kv_type: str
    ) -> Any:
        options = self.lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = cells, chunk, min(chunk, 512)
        options.n_seq_max = sequences
        options.kv_unified = True  # so that sequences share cells
        options.n_threads = options.n_threads_batch = threads or _num_cores()
        options.type_k = options.type_v = _KV_TYPES[kv_type]
        context = self.lib.llama_init_from_model(self._model, options)
        if not context:
            self.lib.llama_model_free(self._model)
            raise EngineError(
                f"llama.cpp has no context of {cells} cells; give it fewer (cells=...), or see the "
                "logger leyline.llama_cpp for its reason"
            )
        return context

    def _found(self, kv_type: str) -> ModelFacts:
        lib, model = self.lib, self._model
        if lib.llama_model_is_recurrent(model) or lib.llama_model_is_hybrid(model):
            return ModelFacts(
                Reason.LAYER_KIND, "a recurrent state cannot be cut, only continued", whole=True
            )
        if lib.llama_model_n_swa(model) > 0:
            return ModelFacts(
                Reason.LAYER_KIND, "layers with a sliding window do not hold what moves into it"
            )
        if not lib.llama_memory_can_shift(self.memory):
            return ModelFacts(Reason.ROPE_KIND, "llama.cpp cannot move this model's keys")
        if kv_type in _QUANTISED:
            return ModelFacts(
                Reason.ENGINE_CANNOT_SPLICE,
                f"keys kept as {kv_type} are rounded anew whenever they move; use f16",
            )
        return ModelFacts()

    # --- tokens ------------------------------------------------------------------------------

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text; special tokens are read as such."""
        data = text.encode()
        room = len(data) + 16
        while True:
            ids = (self.lib.llama_token * room)()
            size = self.lib.llama_tokenize(self.vocab, data, len(data), ids, room, False, True)
            if size >= 0:
                return list(ids[:size])
            room = -size

    def piece(self, token: int, *, special: bool) -> bytes:
        """A token's bytes; none of a special token unless it is asked for."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            size = self.lib.llama_token_to_piece(self.vocab, token, buffer, room, 0, special)
            if size >= 0:
                return buffer.raw[:size]
            room = -size

    # --- computing ---------------------------------------------------------------------------

    def decode(self, parts: Sequence[Part]) -> list[Array]:
        """Decode; of each part the logits wanted, float32 [rows, vocab], none where none are.

        Raises:
            EngineError: llama.cpp could not; what it had computed of the batch is to be removed.
        """
        batch = self._batch
        at = 0
        wanted: list[range] = []
        for part in parts:
            end = at + len(part.tokens)
            wanted.append(range(end - part.rows, end))
            for i, token in enumerate(part.tokens, at):
                batch.token[i] = token
                batch.pos[i] = part.position + i - at
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = part.seq
                batch.logits[i] = i >= end - part.rows
            at = end
        batch.n_tokens = at
        status = self.lib.llama_decode(self._context, batch)
        if status:
            why = "no cells are free" if status == _NO_ROOM else f"it says {status}"
            raise EngineError(f"llama.cpp could not decode {at} tokens: {why}")
        self._shifting = False
        return [self._logits(rows) for rows in wanted]

    def _logits(self, rows: range) -> Array:
        found = [
            np.ctypeslib.as_array(
                self.lib.llama_get_logits_ith(self._context, row), shape=(self.vocab_size,)
            )
            for row in rows
        ]
        return np.stack(found) if found else np.empty((0, self.vocab_size), np.float32)

    # --- cells -------------------------------------------------------------------------------

    def remove(self, seq: int, start: int, end: int) -> None:
        """They belong to the sequence no more; what belongs to none is free."""
        if start < end and not self.lib.llama_memory_seq_rm(self.memory, seq, start, end):
            raise EngineError(f"llama.cpp cannot remove [{start}, {end}) of a sequence")

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """They belong to both sequences."""
        if start < end:
            self.lib.llama_memory_seq_cp(self.memory, source, target, start, end)

    def move(self, seq: int, start: int, end: int, delta: int) -> None:
        """They stand `delta` positions further on; their keys follow with the next decode."""
        self.lib.llama_memory_seq_add(self.memory, seq, start, end, delta)
        self._shifting = True

    @property
    def can_own(self) -> bool:
        """Whether copies would be true: not while keys still have to be rotated."""
        return not self._shifting

    def own(self, seq: int, scratch: int, start: int, end: int) -> None:
        """Put copies in their place that belong to nobody else; `scratch` is empty."""
        lib = self.lib
        self.share(seq, scratch, start, end)
        size = lib.llama_state_seq_get_size(self._context, scratch)
        data = (ctypes.c_uint8 * size)()
        read = lib.llama_state_seq_get_data(self._context, data, size, scratch)
        self.remove(scratch, start, end)
        self.remove(seq, start, end)
        if read != size or not lib.llama_state_seq_set_data(self._context, data, size, scratch):
            raise EngineError(f"llama.cpp could not copy {end - start} cells")
        self.share(scratch, seq, start, end)
        self.remove(scratch, start, end)


class _Closed:
    """In the place of what is freed: the library would crash on it."""

    def __getattr__(self, name: str) -> Any:
        raise EngineError("this llama.cpp model is closed; load it again")


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
