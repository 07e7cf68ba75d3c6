"""What the Triton kernels share, right on a GPU and under Triton's interpreter alike.

The interpreter (TRITON_INTERPRET=1 before triton is imported) runs kernels on the CPU, slowly. It
holds bfloat16 as bare bits, with two traps: a product of two such tiles multiplies the bits, and a
cast to it cuts them off instead of rounding. Both are stepped around here, in branches that a
compiled kernel does not contain.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

__all__ = ["INTERPRETED", "Tile", "cast", "dot", "rotate"]

if TYPE_CHECKING:
    Tile = Any
else:
    Tile = tl.tensor
"""Inside a kernel: a pointer, a block of values or a number."""

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def cast(x: Tile, dtype: tl.constexpr) -> Tile:
    """`x` in another floating-point type, rounded to nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        wide = x.to(tl.float32)
        bits = wide.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(wide == wide, rounded, 0x7FC0)  # rounding would carry NaN into zero
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:  # noqa: RET505  # a compiled kernel contains one branch
        return x.to(dtype)


@triton.jit
def dot(a: Tile, b: Tile, acc: Tile = None) -> Tile:
    """`acc` + `a` @ `b` in float32; `a` and `b` of one type."""
    if INTERPRETED:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), acc, input_precision="ieee")
    else:  # noqa: RET505
        return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def rotate(left: Tile, right: Tile, cos: Tile, sin: Tile) -> Tile:
    """The pairs (left, right) turned by the angle of `cos` and `sin`; all of one type."""
    return left * cos - right * sin, right * cos + left * sin
