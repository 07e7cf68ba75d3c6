"""The Triton kernel behind `rope_shift`: a program rotates a block of (token, head) rows.

Rows are counted heads innermost, so that neighbouring rows of a token are one piece of memory.
Every row is read whole before any is written, with a barrier between: a row may be written where
it was read. Addresses are int64.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from leyline_agent.serving.kernels.rope_shift import Shift
from leyline_agent.serving.kernels.triton_math import Tile, cast, rotate

__all__ = ["constants", "launch", "rope_shift_kernel"]

_TILE = 2048  # pairs a program rotates: 16 a thread


def constants(heads: int, rotary: int, rest: int, *, interleaved: bool) -> dict[str, int]:
    """The kernel's compile-time arguments; `rest` dimensions are copied behind the rotary ones."""
    block, block_rest = triton.next_power_of_2(rotary // 2), triton.next_power_of_2(rest)
    rows = max(1, _TILE // max(block, block_rest // 2))
    sizes = {"HEADS": heads, "ROTARY": rotary, "REST": rest}
    blocks = {"ROWS": rows, "BLOCK": block, "BLOCK_REST": block_rest}
    return sizes | blocks | {"INTERLEAVED": interleaved}


def launch(
    keys: Tensor, out: Tensor, shift: Shift, target: Tensor | None, *, copy_rest: bool
) -> None:
    """Run the kernel; `rope_shift` has checked the arguments."""
    heads, dim = keys.shape[1:]
    rotary, interleaved = shift.rope.rotary_dim, shift.rope.pairing == "interleaved"
    sizes = constants(heads, rotary, dim - rotary if copy_rest else 0, interleaved=interleaved)
    num_rows = len(shift.source) * heads
    strides = (*keys.stride()[:2], *out.stride()[:2])
    rope_shift_kernel[(triton.cdiv(num_rows, sizes["ROWS"]),)](
        keys,
        out,
        shift.source,
        target,
        shift.turn,
        shift.cos,
        shift.sin,
        num_rows,
        *strides,
        **sizes,
    )


@triton.jit
def rope_shift_kernel(
    keys: Tile,
    out: Tile,
    source: Tile,
    target: Tile,
    turn: Tile,
    cos: Tile,
    sin: Tile,
    num_rows: Tile,
    keys_row: Tile,
    keys_head: Tile,
    out_row: Tile,
    out_head: Tile,
    HEADS: tl.constexpr,
    ROTARY: tl.constexpr,
    REST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_REST: tl.constexpr,
    INTERLEAVED: tl.constexpr,
) -> None:
    """Row r is head r % HEADS of token r // HEADS; `target` None is the tokens in order."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    real = row < num_rows
    token, head = row // HEADS, row % HEADS
    read = tl.load(source + token, mask=real, other=0)
    write = token if target is None else tl.load(target + token, mask=real, other=0)
    src = keys + read * keys_row + head * keys_head
    dst = out + write * out_row + head * out_head
    if REST > 0:
        at = ROTARY + tl.arange(0, BLOCK_REST)
        in_rest = real[:, None] & (at < ROTARY + REST)[None, :]
        rest = tl.load(src[:, None] + at[None, :], mask=in_rest)
    wide = cos.dtype.element_ty
    table = tl.load(turn + token, mask=real, other=0)[:, None] * ROTARY
    # The tables are laid out for whole rows. A pair takes its cosine from the first of the two,
    # its sine from the second, where it is not negated.
    if INTERLEAVED:
        # In one piece and split in registers; loads two elements apart would be slow.
        at_pair = tl.arange(0, 2 * BLOCK)[None, :]
        mask = real[:, None] & (at_pair < ROTARY)
        x = tl.load(src[:, None] + at_pair, mask=mask, other=0.0).to(wide)
        c, _ = _split(tl.load(cos + table + at_pair, mask=mask, other=1.0), ROWS, BLOCK)
        _, s = _split(tl.load(sin + table + at_pair, mask=mask, other=0.0), ROWS, BLOCK)
        left, right = _split(x, ROWS, BLOCK)
        left, right = rotate(left, right, c, s)
        y = tl.reshape(tl.join(left, right), (ROWS, 2 * BLOCK))
        tl.debug_barrier()
        tl.store(dst[:, None] + at_pair, cast(y, out.dtype.element_ty), mask=mask)
    else:
        first = tl.arange(0, BLOCK)[None, :]
        second = first + ROTARY // 2
        mask = real[:, None] & (first < ROTARY // 2)
        left = tl.load(src[:, None] + first, mask=mask, other=0.0).to(wide)
        right = tl.load(src[:, None] + second, mask=mask, other=0.0).to(wide)
        c = tl.load(cos + table + first, mask=mask, other=1.0)
        s = tl.load(sin + table + second, mask=mask, other=0.0)
        left, right = rotate(left, right, c, s)
        tl.debug_barrier()
        tl.store(dst[:, None] + first, cast(left, out.dtype.element_ty), mask=mask)
        tl.store(dst[:, None] + second, cast(right, out.dtype.element_ty), mask=mask)
    if REST > 0:
        tl.store(dst[:, None] + at[None, :], rest, mask=in_rest)


@triton.jit
def _split(x: Tile, ROWS: tl.constexpr, PAIRS: tl.constexpr) -> Tile:
    """The first and the second of each pair of neighbours."""
    return tl.split(tl.reshape(x, (ROWS, PAIRS, 2)))
