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

__all__ = ["launch", "rope_shift_kernel"]

_TILE = 2048  # pairs a program rotates: 16 a thread


def launch(
    keys: Tensor, out: Tensor, shift: Shift, target: Tensor | None, *, copy_rest: bool
) -> None:
    """Run the kernel; `rope_shift` has checked the arguments."""
    num, (heads, dim) = len(shift.source), keys.shape[1:]
    rotary = shift.rope.rotary_dim
    rest = dim - rotary if copy_rest else 0
    block, block_rest = triton.next_power_of_2(rotary // 2), triton.next_power_of_2(rest)
    rows = max(1, _TILE // max(block, block_rest // 2))
    rope_shift_kernel[(triton.cdiv(num * heads, rows),)](
        keys, out, shift.source, target, shift.turn, shift.cos, shift.sin, num * heads,
        *keys.stride()[:2], *out.stride()[:2],
        HEADS=heads, ROTARY=rotary, REST=rest, ROWS=rows, BLOCK=block, BLOCK_REST=block_rest,
        INTERLEAVED=shift.rope.pairing == "interleaved",
    )  # fmt: skip


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
    pair = tl.arange(0, BLOCK)
    mask = real[:, None] & (pair < ROTARY // 2)[None, :]
    # The tables are laid out for whole rows; a pair takes its cosine from the first of the two,
    # its sine from the second, where it is not negated.
    first, second = pair, pair + ROTARY // 2
    if INTERLEAVED:
        first, second = 2 * pair, 2 * pair + 1
    wide = cos.dtype.element_ty
    table = tl.load(turn + token, mask=real, other=0)[:, None] * ROTARY
    c = tl.load(cos + table + first[None, :], mask=mask, other=1.0)
    s = tl.load(sin + table + second[None, :], mask=mask, other=0.0)
    if INTERLEAVED:
        # Whole rows in one piece; loads two elements apart would not be.
        whole = tl.arange(0, 2 * BLOCK)
        in_whole = real[:, None] & (whole < ROTARY)[None, :]
        x = tl.load(src[:, None] + whole[None, :], mask=in_whole, other=0.0).to(wide)
        left, right = tl.split(tl.reshape(x, (ROWS, BLOCK, 2)))
        left, right = rotate(left, right, c, s)
        y = tl.reshape(tl.join(left, right), (ROWS, 2 * BLOCK))
        tl.debug_barrier()
        tl.store(dst[:, None] + whole[None, :], cast(y, out.dtype.element_ty), mask=in_whole)
    else:
        left = tl.load(src[:, None] + first[None, :], mask=mask, other=0.0).to(wide)
        right = tl.load(src[:, None] + second[None, :], mask=mask, other=0.0).to(wide)
        left, right = rotate(left, right, c, s)
        tl.debug_barrier()
        tl.store(dst[:, None] + first[None, :], cast(left, out.dtype.element_ty), mask=mask)
        tl.store(dst[:, None] + second[None, :], cast(right, out.dtype.element_ty), mask=mask)
    if REST > 0:
        tl.store(dst[:, None] + at[None, :], rest, mask=in_rest)
