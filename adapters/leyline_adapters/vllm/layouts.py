"""Where a block keeps which number, learned by writing patterns through vLLM's own operator.

Backends pack KV each in its way: GPUs by token or by head, CPUs in tiles for their instruction
sets. Instead of knowing them all, one block is written with each number's token, head and
dimension, and read back raw. That gives, for keys and values apart,

    place[token, head, dim]      an offset inside the block

which splits into strides along each axis wherever the packing is regular; then reading is one
strided copy, else an indexed one. Writing is always the backend's own operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Layout", "Shape", "UnknownLayout", "Write", "learn"]

Write = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""write(cache, keys [n, heads, dim], values [n, heads, dim], slots int64 [n]): the layer's own."""

_DIGIT = 128  # Whole numbers below this are exact in every type that KV has.
_WIDER = {2: torch.int32, 4: torch.int64}


class UnknownLayout(Exception):
    """A cache that does not hold each number once cannot be read."""


class Shape(NamedTuple):
    """Heads and dimensions of what a layer's operator takes as keys, and as values.

    Keys are what is rotated: with latents (MLA) the rotary part alone, and the latent is the value.
    """

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int


@dataclass(frozen=True)
class _Part:
    """Keys, or values, in a block.

    Attributes:
        place: int64 [tokens, heads, dim], offsets inside a block.
        sizes, strides: the same as a strided view, outermost first; empty where there is none.
        pairs: the view's numbers are pairs of the cache's, side by side.
    """

    place: Tensor
    sizes: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pairs: bool = False

    def read(self, raw: Tensor) -> Tensor:
        """Rows [blocks * tokens, heads, dim] of raw blocks [blocks, numbers]."""
        tokens, heads, dim = self.place.shape
        rows = (len(raw) * tokens, heads, dim)
        if not self.sizes:
            return raw.index_select(1, self.place.view(-1)).view(rows)
        dtype, step = raw.dtype, 1
        if self.pairs:
            raw, step = raw.view(_WIDER[raw.itemsize]), 2
        first = int(self.place[0, 0, 0]) // step
        view = raw.as_strided((len(raw), *self.sizes), (raw.shape[1], *self.strides), first)
        return view.reshape(len(raw), -1).view(dtype).reshape(rows)


@dataclass(frozen=True)
class Layout:
    """How one kind of layer keeps its KV."""

    keys: _Part
    values: _Part

    def read(self, cache: Tensor, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of whole blocks: rows [len(blocks) * block_size, heads, dim]."""
        raw = cache.index_select(0, blocks).reshape(len(blocks), -1)
        return self.keys.read(raw), self.values.read(raw)


def learn(cache: Tensor, block_size: int, shape: Shape, write: Write) -> Layout:
    """Learn how `cache` [blocks, ...] keeps keys and values; it is not changed.

    Raises:
        UnknownLayout: a number written is not found again, or the operator shares one for several.
    """
    numbers = block_size * (shape.key_heads * shape.key_dim + shape.value_heads * shape.value_dim)
    if cache[0].numel() != numbers:  # Padded, or of smaller blocks than the scheduler's.
        raise UnknownLayout(
            f"a block holds {cache[0].numel()} numbers; {block_size} tokens have {numbers}"
        )
    probe = _Probe(cache, block_size, shape, write)
    return Layout(_part(probe.places(keys=True)), _part(probe.places(keys=False)))


@dataclass(frozen=True)
class _Probe:
    """Writes one block that looks like the cache's, and reads it raw."""

    cache: Tensor
    block_size: int
    shape: Shape
    write: Write

    def places(self, *, keys: bool) -> Tensor:
        """Offsets [tokens, heads, dim] of keys, or values."""
        heads, dim = self.shape[:2] if keys else self.shape[2:]
        size = (self.block_size, heads, dim)
        here = self._raw(torch.ones(size), keys=keys) != 0
        place = here.nonzero()[:, 0]
        if len(place) != prod(size):
            raise UnknownLayout(f"{prod(size)} numbers were written, {len(place)} found")
        numbers = torch.arange(prod(size)).view(size)
        found = torch.zeros(len(place), dtype=torch.int64)
        unit = 1
        while unit < prod(size):
            digits = (numbers // unit % _DIGIT).float()
            found += self._raw(digits, keys=keys)[place].to(torch.int64) * unit
            unit *= _DIGIT
        order = torch.argsort(found)
        if not torch.equal(found[order], numbers.view(-1)):
            raise UnknownLayout("the operator keeps some numbers more than once, or rounded")
        return place[order].view(size).to(self.cache.device)

    def _raw(self, pattern: Tensor, *, keys: bool) -> Tensor:
        """A block in which keys, or values, have been written, the others being zero."""
        block = torch.zeros_like(self.cache[:1])
        key = block.new_zeros(self.block_size, *self.shape[:2])
        value = block.new_zeros(self.block_size, *self.shape[2:])
        (key if keys else value).copy_(pattern)
        slots = torch.arange(self.block_size, device=self.cache.device)
        self.write(block, key, value, slots)
        return block.reshape(-1).float().cpu()


def _part(place: Tensor) -> _Part:
    """A part with its strided view, if it has one."""
    host = place.cpu()
    first = int(host[0, 0, 0])
    axes = [host[:, 0, 0] - first, host[0, :, 0] - first, host[0, 0, :] - first]
    tokens, heads, dims = axes
    split = [_strides(axis) for axis in axes]
    whole = first + tokens[:, None, None] + heads[:, None] + dims
    if None in split or not torch.equal(whole, host):
        return _Part(place)
    levels = [level for one in split if one is not None for level in one]
    sizes = tuple(size for size, _ in levels)
    strides = tuple(stride for _, stride in levels)
    outer = (*strides[:-1], first)
    if sizes[-1] == 2 and strides[-1] == 1 and not any(stride % 2 for stride in outer):
        return _Part(place, sizes[:-1], tuple(stride // 2 for stride in strides[:-1]), pairs=True)
    return _Part(place, sizes, strides)


def _strides(offsets: Tensor) -> list[tuple[int, int]] | None:
    """Sizes and strides, outermost first, that give these offsets; None when none do."""
    values: list[int] = offsets.tolist()
    levels: list[tuple[int, int]] = []
    done = 1
    while done < len(values):
        stride = values[done]
        size = 2
        while done * size < len(values) and values[done * size] == stride * size:
            size += 1
        if len(values) % (done * size):
            return None
        levels.insert(0, (size, stride))
        done *= size
    given = torch.zeros(1, dtype=torch.int64)
    for size, stride in reversed(levels):
        given = (torch.arange(size)[:, None] * stride + given).view(-1)
    return (levels or [(1, 0)]) if given.tolist() == values else None
