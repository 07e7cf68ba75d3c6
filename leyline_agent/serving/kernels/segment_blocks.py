"""How attention heads are cut for the kernels: the heads' shape, blocks, what is compiled in."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.checks import check_tensors
from leyline_agent.serving.kernels.triton_math import INTERPRETED
from leyline_agent.serving.kernels.work_list import Tiling

__all__ = ["Blocks", "HeadShape", "choose_blocks", "constants", "tiling_of"]

MAX_KEY_DIM = 576  # MLA: 64 rotated + 512 latent
MAX_VALUE_DIM = 512
_LAYOUT = (
    "needed are query [heads, total, d], keys [slots, kv_heads, d], values [slots, kv_heads, d_v]"
)


class HeadShape(NamedTuple):
    """The heads of one attention layer.

    Attributes:
        heads: query heads.
        kv_heads: key heads; `heads` is a multiple.
        dim: size of a query and a key.
        value_dim: size of a value.
        latent: the values are the memory of the keys' last entries (MLA).
    """

    heads: int
    kv_heads: int
    dim: int
    value_dim: int
    latent: bool = False

    @property
    def group(self) -> int:
        """Query heads a key head."""
        return self.heads // self.kv_heads

    @classmethod
    def of(cls, query: Tensor, keys: Tensor, values: Tensor) -> HeadShape:
        """Of `query` [heads, total, d], `keys` [slots, kv_heads, d], `values` [.., .., d_v].

        Raises:
            EngineError: types, devices, sizes or strides that do not fit each other, or that no
                kernel knows.
        """
        check_tensors("segment attention", keys=keys, values=values, query=query)
        shapes = {"query": query.shape, "keys": keys.shape, "values": values.shape}
        for name, found in shapes.items():
            if len(found) != 3:
                raise EngineError(f"{name} has {len(found)} dimensions; {_LAYOUT}")
        (heads, _, query_dim), (slots, kv_heads, dim), (*rest, value_dim) = shapes.values()
        if query_dim != dim or heads % kv_heads:
            raise EngineError(
                f"query {tuple(query.shape)} does not fit keys {tuple(keys.shape)}; {_LAYOUT}, "
                "query heads a multiple of key heads"
            )
        if rest != [slots, kv_heads]:
            raise EngineError(
                f"values {tuple(values.shape)} do not fit keys {tuple(keys.shape)}; {_LAYOUT}"
            )
        for name, size, most in (("keys", dim, MAX_KEY_DIM), ("values", value_dim, MAX_VALUE_DIM)):
            if size > most:
                raise EngineError(
                    f"{name} have heads of {size} entries and the kernels go up to {most}; use "
                    "LEYLINE_KERNELS=torch for this model"
                )
        tail = keys[..., max(0, dim - value_dim) :]
        latent = value_dim < dim and tail.data_ptr() == values.data_ptr()
        return cls(heads, kv_heads, dim, value_dim, latent and tail.stride() == values.stride())


class Blocks(NamedTuple):
    """How a program is cut.

    Attributes:
        queries: query tokens of an item; 1 needs no masks.
        heads: query heads of a program.
        rows: of a tile of queries, at least queries * heads; a power of two from 16 on.
        keys: of a tile of keys; likewise.
        warps: of a program.
        stages: tiles of keys on their way at a time.
    """

    queries: int
    heads: int
    rows: int
    keys: int
    warps: int = 4
    stages: int = 2


def choose_blocks(shape: HeadShape, dtype: torch.dtype, *, decode: bool) -> Blocks:
    """Blocks for one query token an item (`decode`), or for as many as fill a tile of rows.

    Chosen by what the compiler says for sm90, not by measurement: 16-bit types spill no registers,
    and two programs fit on a multiprocessor. Decode is bound by memory and takes three stages;
    heads of more than 192 take the registers of twice the warps, and of half the rows; float32
    products are no tensor-core work and take the smallest tiles.
    """
    wide, exact = shape.dim > 192, dtype == torch.float32
    rows = 16 if exact else 32 if wide else 64
    heads = min(shape.group, rows)
    queries = 1 if decode else max(1, rows // heads)
    if decode:
        rows = max(16, triton.next_power_of_2(heads))
    if INTERPRETED:  # time goes with the number of tiles, not with their size
        rows = rows if decode else 256
        return Blocks(1 if decode else max(1, rows // heads), heads, rows, 128)
    bytes_a_key = (shape.dim + (0 if shape.latent else shape.value_dim)) * dtype.itemsize
    fitting = (20480 if exact else 36864) // bytes_a_key
    keys = next(size for size in (64, 32, 16) if size <= max(16, fitting))
    warps = 8 if wide or rows > 32 else 4
    return Blocks(
        queries, heads, rows, keys, warps, 3 if decode and not (shape.latent or exact) else 2
    )


def _head_blocks(shape: HeadShape, rotary_dim: int) -> tuple[int, int, int, bool]:
    """The sizes of a head's two blocks and of a value's, and whether values are the second."""
    values = max(16, triton.next_power_of_2(shape.value_dim))
    front = shape.dim - shape.value_dim
    if shape.latent and front >= max(16, rotary_dim) and front & (front - 1) == 0:
        return front, values, values, True
    first = max(16, triton.next_power_of_2(shape.dim + 1) // 2)
    second = max(0, shape.dim - first)
    return first, max(16, triton.next_power_of_2(second)) if second else 0, values, False


def constants(
    shape: HeadShape, blocks: Blocks, rotary_dim: int, *, interleaved: bool
) -> dict[str, int]:
    """What the kernel is specialised to for a model; the rest goes with the work list."""
    first, second, wide, shared = _head_blocks(shape, rotary_dim)
    return {
        "HEADS": shape.heads,
        "GROUP": shape.group,
        "D": shape.dim,
        "D_V": shape.value_dim,
        "ROTARY": rotary_dim,
        "INTERLEAVED": interleaved,
        "QUERIES": blocks.queries,
        "BLOCK_H": blocks.heads,
        "BLOCK_M": blocks.rows,
        "BLOCK_N": blocks.keys,
        "BLOCK_A": first,
        "BLOCK_B": second,
        "BLOCK_V": wide,
        "MASKED": blocks.queries > 1,
        "SHARED": shared,
    }


def tiling_of(shape: HeadShape, blocks: Blocks, programs: int) -> Tiling:
    """How work lists are cut for `blocks`, on a device that runs `programs` programs at a time."""
    a_head = shape.kv_heads * -(-shape.group // blocks.heads)
    return Tiling(blocks.queries, blocks.keys, max(1, programs // a_head))
