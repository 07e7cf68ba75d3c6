"""Attention layers that pack their KV as vLLM's backends do, without vLLM."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Write = Callable[[Tensor, Tensor, Tensor, Tensor], None]
HEADS, DIM, BLOCK = 2, 32, 32


def _slot(cache: Tensor, slot: int) -> tuple[Tensor, int]:
    block, at = divmod(slot, BLOCK)
    return cache[block], at


def amx(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Tiles for AMX: keys [tok/16][d/2][16][2], values [d/16][tok/2][16][2], a head at a time."""
    for row, slot in enumerate(slots.tolist()):
        block, at = _slot(cache, slot)
        halves = block.view(HEADS, 2, BLOCK * DIM)
        packed = halves[:, 0].view(HEADS, BLOCK // 16, DIM // 2, 16, 2)
        packed[:, at // 16, :, at % 16] = keys[row].view(HEADS, DIM // 2, 2)
        packed = halves[:, 1].view(HEADS, DIM // 16, BLOCK // 2, 16, 2)
        packed[:, :, at // 2, :, at % 2] = values[row].view(HEADS, DIM // 16, 16)


def vec(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Keys by dimension within 16 tokens, values by token."""
    for row, slot in enumerate(slots.tolist()):
        block, at = _slot(cache, slot)
        halves = block.view(HEADS, 2, BLOCK * DIM)
        halves[:, 0].view(HEADS, BLOCK // 16, DIM, 16)[:, at // 16, :, at % 16] = keys[row]
        halves[:, 1].view(HEADS, BLOCK, DIM)[:, at] = values[row]


def rows(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """A GPU's: keys and values side by side, whatever the strides."""
    for row, slot in enumerate(slots.tolist()):
        block, at = _slot(cache, slot)
        block[:, at, :DIM] = keys[row]
        block[:, at, DIM:] = values[row]


def latents(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """MLA's: the latent, then the rotary part."""
    for row, slot in enumerate(slots.tolist()):
        block, at = _slot(cache, slot)
        block[at, : values.shape[-1]] = values[row, 0]
        block[at, values.shape[-1] :] = keys[row, 0]


_ORDER = torch.randperm(HEADS * BLOCK * 2 * DIM, generator=torch.Generator().manual_seed(1))


def shuffled(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """No order at all, but every number once."""
    for row, slot in enumerate(slots.tolist()):
        block, at = _slot(cache, slot)
        place = _ORDER.view(2, BLOCK, HEADS, DIM)[:, at]
        block.view(-1)[place[0]] = keys[row]
        block.view(-1)[place[1]] = values[row]


def lossy(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Eight bits: numbers are rounded."""
    rows(cache, (keys / 16).round() * 16, values, slots)


def forgetful(cache: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Values are kept elsewhere."""
    rows(cache, keys, torch.zeros_like(values), slots)


def head_major(blocks: int, dtype: torch.dtype) -> Tensor:
    """[blocks, heads, tokens, 2 * dim], as it lies."""
    return torch.zeros(blocks, HEADS, BLOCK, 2 * DIM, dtype=dtype)


def token_major(blocks: int, dtype: torch.dtype) -> Tensor:
    """The same shape, but in memory tokens come before heads."""
    return torch.zeros(blocks, BLOCK, HEADS, 2 * DIM, dtype=dtype).transpose(1, 2)


class RotaryEmbedding(torch.nn.Module):
    """vLLM's, as far as it is looked at."""

    def __init__(
        self, dim: int, *, neox: bool = True, base: float = 1e4, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        super().__init__()
        self.dim, self.base, self.is_neox_style = dim, base, neox
        angles = torch.arange(2048)[:, None] * self._compute_inv_freq(base)
        self.cos_sin_cache = torch.cat((angles.cos(), angles.sin()), -1).to(dtype)

    def _compute_inv_freq(self, base: float) -> Tensor:
        return 1.0 / base ** (torch.arange(0, self.dim, 2).float() / self.dim)


def module(write: Write) -> Any:
    """An attention layer whose backend packs like `write`."""

    def update(layer: Any, keys: Tensor, values: Tensor, cache: Tensor, slots: Tensor) -> None:
        write(cache, keys, values, slots)

    impl = SimpleNamespace(do_kv_cache_update=update)
    return SimpleNamespace(impl=impl, num_kv_heads=HEADS, head_size=DIM, head_size_v=DIM)


def mla_module(latent: int, rotary: int) -> Any:
    """An MLA layer."""

    def update(
        values: Tensor, keys: Tensor, cache: Tensor, slots: Tensor, dtype: str, scale: Any
    ) -> None:
        latents(cache, keys, values[:, None], slots)

    impl = SimpleNamespace(do_kv_cache_update=update)
    return SimpleNamespace(
        impl=impl, kv_lora_rank=latent, qk_rope_head_dim=rotary, _k_scale=torch.ones(())
    )
