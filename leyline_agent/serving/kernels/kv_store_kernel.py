"""The Triton kernel behind `kv_store`: a program copies a block of (token, head) rows.

Rows are counted along the store, heads innermost, so that neighbouring rows of a token are one
piece of memory there. Addresses are int64: a store of more than 2^31 elements is an ordinary one.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from leyline_agent.serving.kernels.triton_math import Tile

__all__ = ["constants", "kv_store_kernel", "launch"]

_TILE = 4096  # elements a program moves: 32 a thread


def constants(heads: int, dim: int, dim_v: int) -> dict[str, int]:
    """The kernel's compile-time arguments."""
    block_d, block_v = triton.next_power_of_2(dim), triton.next_power_of_2(dim_v)
    rows = max(1, _TILE // max(block_d, block_v))
    sizes = {"HEADS": heads, "D": dim, "D_V": dim_v}
    return sizes | {"ROWS": rows, "BLOCK_D": block_d, "BLOCK_V": block_v}


def launch(
    keys: Tensor, values: Tensor | None, key: Tensor, value: Tensor | None, slots: Tensor
) -> None:
    """Run the kernel; `kv_store` has checked the arguments."""
    heads, total, dim = key.shape
    strides = (*keys.stride()[:2], *key.stride()[:2])
    strides_v: tuple[int, ...] = (0, 0, 0, 0)
    dim_v = dim
    if values is not None and value is not None:
        strides_v = (*values.stride()[:2], *value.stride()[:2])
        dim_v = value.shape[-1]
    sizes = constants(heads, dim, dim_v)
    num_rows = total * heads
    grid = (triton.cdiv(num_rows, sizes["ROWS"]),)
    kv_store_kernel[grid](keys, values, key, value, slots, num_rows, *strides, *strides_v, **sizes)


@triton.jit
def kv_store_kernel(
    keys: Tile,
    values: Tile,
    key: Tile,
    value: Tile,
    slots: Tile,
    num_rows: Tile,
    keys_slot: Tile,
    keys_head: Tile,
    key_head: Tile,
    key_token: Tile,
    values_slot: Tile,
    values_head: Tile,
    value_head: Tile,
    value_token: Tile,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    D_V: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
) -> None:
    """Row r is head r % HEADS of token r // HEADS."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    token, head = row // HEADS, row % HEADS
    slot = tl.load(slots + token, mask=row < num_rows, other=-1).to(tl.int64)
    real = slot >= 0
    _copy_rows(
        key + head * key_head + token * key_token,
        keys + slot * keys_slot + head * keys_head,
        real,
        D,
        BLOCK_D,
    )
    if values is not None:
        _copy_rows(
            value + head * value_head + token * value_token,
            values + slot * values_slot + head * values_head,
            real,
            D_V,
            BLOCK_V,
        )


@triton.jit
def _copy_rows(src: Tile, dst: Tile, real: Tile, D: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """The first D elements behind each pointer of `src` [rows] to those behind `dst`."""
    at = tl.arange(0, BLOCK)
    mask = real[:, None] & (at < D)[None, :]
    tl.store(dst[:, None] + at[None, :], tl.load(src[:, None] + at[None, :], mask=mask), mask=mask)
