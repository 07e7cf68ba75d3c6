"""The connector's worker side: copies keys and values between blocks, rotating keys as they move.

Every rank does this with its own shard of the heads; nothing is exchanged. Keys are rotated in
float32, once, by the whole distance from where they were written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from leyline_adapters.vllm.layouts import Layout, Shape, UnknownLayout, Write, learn
from leyline_adapters.vllm.refusals import Refusal
from leyline_adapters.vllm.rotations import rotation
from leyline_adapters.vllm.transfer import Copy, Load
from leyline_agent.receipt import Reason
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["Rows", "WorkerSide"]

log = logging.getLogger("leyline.vllm")

_FEW = 16


@dataclass(frozen=True)
class _Layer:
    """A layer's cache, how it is read, and its own operator for writing."""

    cache: Tensor
    layout: Layout
    write: Write


@dataclass(frozen=True)
class Rows:
    """One load's rows, the same for every layer.

    Attributes:
        blocks: source blocks [m], each once.
        pick: their rows to take, in order: a slice where they lie so.
        slots: where each row goes [n].
        turns: which of the rows taken are rotated, with cosines and sines that broadcast to them.
    """

    blocks: Tensor
    pick: slice | Tensor
    slots: Tensor
    turns: tuple[tuple[slice, Tensor, Tensor], ...]

    @classmethod
    def of(cls, load: Load, block_size: int, rope: RopeSpec, like: Tensor) -> Rows:
        """Plan a load, on the device and for the type of the cache `like`."""
        blocks = dict.fromkeys(block for copy in load.copies for block in copy.blocks)
        number = {block: i for i, block in enumerate(blocks)}
        picked = torch.cat([_rows_of(copy, number, block_size) for copy in load.copies])
        first = load.copies[0].at
        at = torch.arange(first, first + len(picked))
        slots = torch.tensor(load.blocks)[at // block_size] * block_size + at % block_size
        begin = int(picked[0])
        together = torch.equal(picked, torch.arange(begin, begin + len(picked)))
        return cls(
            torch.tensor(list(blocks), device=like.device),
            slice(begin, begin + len(picked)) if together else picked.to(like.device),
            slots.to(like.device),
            _turns(load.copies, rope, like),
        )

    def take(self, rows: Tensor) -> Tensor:
        """The load's rows of those of its source blocks."""
        return rows[self.pick] if isinstance(self.pick, slice) else rows.index_select(0, self.pick)


def _rows_of(copy: Copy, number: Mapping[int, int], block_size: int) -> Tensor:
    """A copy's rows among those of all source blocks."""
    at = torch.arange(copy.offset, copy.offset + copy.length)
    return torch.tensor([number[b] for b in copy.blocks])[at // block_size] * block_size + (
        at % block_size
    )


def _turns(
    copies: Iterable[Copy], rope: RopeSpec, like: Tensor
) -> tuple[tuple[slice, Tensor, Tensor], ...]:
    """Runs of rows that move alike share one rotation; where they are many, each row has its own.

    One rotation for many rows is three times as fast as one for each.
    """
    shifts = torch.cat([torch.full((copy.length,), copy.shift) for copy in copies])
    runs, lengths = torch.unique_consecutive(shifts, return_counts=True)
    distinct, row = torch.unique(shifts, return_inverse=True)
    wide = torch.float64 if like.dtype == torch.float32 else torch.float32
    cos, sin = (table[:, None].to(like.device) for table in rope.tables(distinct, wide))
    if len(runs) > _FEW:
        row = row.to(like.device)
        return ((slice(0, len(shifts)), cos[row], sin[row]),)
    ends = lengths.cumsum(0).tolist()
    places = [slice(end - n, end) for end, n in zip(ends, lengths.tolist(), strict=True)]
    which = torch.searchsorted(distinct, runs).tolist()
    return tuple(
        (place, cos[i : i + 1], sin[i : i + 1])
        for place, i, shift in zip(places, which, runs.tolist(), strict=True)
        if shift
    )


class WorkerSide:
    """One worker's part. `refusal` says why it cannot move its model's keys, if it cannot."""

    def __init__(self, config: Any) -> None:
        self.refusal: Refusal | None = Refusal(Reason.LAYER_KIND, "no KV cache is registered")
        self._config = config
        self._layers: list[_Layer] = []
        self._rope: RopeSpec | None = None
        self._block_size = 0
        self._finished: set[str] = set()
        self._invalid: set[int] = set()
        self._times: dict[str, float] = {}
        self._errors: dict[str, str] = {}

    def register(self, caches: Mapping[str, Any]) -> None:
        """Learn the layers' layouts and the model's rotation; a failure becomes a refusal."""
        try:
            self.refusal = self._learn(caches)
        except (UnknownLayout, RuntimeError, AttributeError, TypeError, ValueError) as error:
            self.refusal = Refusal(
                Reason.LAYER_KIND, f"its KV cannot be read ({type(error).__name__}: {error})"
            )
        if self.refusal is not None:
            log.warning("leyline: nothing will be spliced: %s", self.refusal.detail)

    def _learn(self, caches: Mapping[str, Any]) -> Refusal | None:
        modules = self._config.compilation_config.static_forward_context
        self._block_size = self._config.cache_config.block_size
        known: dict[tuple[Any, ...], Layout] = {}
        seen: set[int] = set()
        key_dim = 0
        for name, cache in caches.items():
            if cache.data_ptr() in seen:
                continue  # A layer that shares another's cache.
            seen.add(cache.data_ptr())
            shape, write = _operator(modules[name])
            key_dim = shape.key_dim
            kind = (tuple(cache.shape[1:]), cache.stride(), cache.dtype, shape)
            if kind not in known:
                known[kind] = learn(cache, self._block_size, shape, write)
            self._layers.append(_Layer(cache, known[kind], write))
        found = rotation(self.rotary_modules(), key_dim)
        if isinstance(found, Refusal):
            return found
        self._rope = found
        return None

    def rotary_modules(self) -> Iterable[Any]:
        """The rotary modules that vLLM has made in this process: the model's."""
        from vllm.model_executor.layers import rotary_embedding

        found: dict[Any, Any] = rotary_embedding._ROPE_DICT
        return found.values()

    def run(self, loads: Iterable[Load]) -> None:
        """Carry out loads; one that fails is reported, and its request is prefilled."""
        for load in loads:
            started = time.perf_counter()
            try:
                self.copy(load)
            except Exception as error:  # Whatever it is, only this request may suffer.
                self._errors[load.request] = f"{type(error).__name__}: {error}"
                first = load.copies[0].at // self._block_size
                self._invalid.update(load.blocks[first:])
            self._times[load.request] = (time.perf_counter() - started) * 1e6
            self._finished.add(load.request)

    @torch.inference_mode()
    def copy(self, load: Load) -> None:
        """One load, layer by layer."""
        rows = Rows.of(load, self._block_size, self._known_rope(), self._layers[0].cache)
        for number in range(len(self._layers)):
            self.copy_layer(number, rows)

    def copy_layer(self, number: int, rows: Rows) -> None:
        """One layer of one load."""
        rope = self._known_rope()
        layer = self._layers[number]
        keys, values = (rows.take(part) for part in layer.layout.read(layer.cache, rows.blocks))
        for where, cos, sin in rows.turns:
            keys[where] = rope.rotate(keys[where], cos, sin)
        layer.write(layer.cache, keys, values, rows.slots)

    def _known_rope(self) -> RopeSpec:
        if self._rope is None:
            raise RuntimeError("this worker does not know how its model rotates keys")
        return self._rope

    def take_finished(self) -> set[str]:
        """Requests whose loads are over."""
        taken, self._finished = self._finished, set()
        return taken

    def take_invalid(self) -> set[int]:
        """Blocks that could not be filled."""
        taken, self._invalid = self._invalid, set()
        return taken

    def take_report(self) -> tuple[dict[str, float], dict[str, str]]:
        """Microseconds and errors by request."""
        times, self._times = self._times, {}
        errors, self._errors = self._errors, {}
        return times, errors


def _operator(module: Any) -> tuple[Shape, Write]:
    """What a layer's own operator takes, and the operator."""
    impl = module.impl
    if hasattr(module, "kv_lora_rank"):
        shape = Shape(1, module.qk_rope_head_dim, 1, module.kv_lora_rank)

        def write_latents(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
            impl.do_kv_cache_update(values[:, 0], keys, cache, slots, "auto", module._k_scale)

        return shape, write_latents
    shape = Shape(
        module.num_kv_heads, module.head_size, module.num_kv_heads,
        getattr(module, "head_size_v", module.head_size),
    )  # fmt: skip

    def write(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
        impl.do_kv_cache_update(module, keys, values, cache, slots)

    return shape, write
