"""How far each kernel is from float64: the table in docs/kernels.md.

    python benchmarks/accuracy.py

On a machine with a CUDA device the kernels run compiled, elsewhere under Triton's interpreter.
Each kernel's owner adds a function that returns the worst case of a type.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import torch

if not torch.cuda.is_available():  # before the kernels are imported
    os.environ["TRITON_INTERPRET"] = "1"
os.environ["LEYLINE_KERNELS"] = "triton"

import numpy as np

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.kv_store import kv_store
from leyline_agent.serving.kernels.rope_shift import plan_shift, rope_shift
from leyline_agent.serving.kernels.segment_attend import (
    segment_attend,
    segment_attention_reference,
)
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.models.rope import Pairing, RopeSpec

__all__ = ["KERNELS", "Kernel", "measure"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Kernel(NamedTuple):
    """A kernel's line in the table.

    Attributes:
        name: with the unit of its errors.
        worst: the largest error in a type.
        promised: what it must not exceed, in the order of `DTYPES`.
    """

    name: str
    worst: Callable[[torch.dtype], float]
    promised: tuple[float, float, float]


def stored(dtype: torch.dtype) -> float:
    """How many of the stored numbers differ from the given ones."""
    key = torch.randn(8, 500, 128, device=DEVICE).to(dtype)
    keys, slots = key.new_zeros(600, 8, 128), torch.randperm(600, device=DEVICE)[:500]
    kv_store(keys, None, key, None, slots)
    return float((keys[slots] != key.transpose(0, 1)).sum())


def shifted(dtype: torch.dtype) -> float:
    """Units of the last place at the rotated pair's length, over sizes, pairings and deltas."""
    rng, worst = np.random.default_rng(0), 0.0
    for dim, rotary in ((64, 64), (128, 128), (80, 32), (96, 96), (256, 256), (576, 64)):
        for pairing in ("half", "interleaved"):
            rope = make_rope(rotary, pairing)
            keys, out = torch.randn(2, 1000, 2, dim, device=DEVICE).to(dtype)
            deltas = rng.integers(-131072, 131072, 1000)
            rope_shift(
                keys, out, plan_shift(np.arange(1000), None, deltas, rope, dtype, keys.device)
            )
            worst = max(worst, ulps(out, keys, rope, torch.from_numpy(deltas)))
    return worst


def make_rope(rotary: int, pairing: Pairing) -> RopeSpec:
    exponents = torch.arange(rotary // 2, dtype=torch.float64) / (rotary // 2)
    return RopeSpec(1e4**-exponents, pairing)


def ulps(out: torch.Tensor, keys: torch.Tensor, rope: RopeSpec, deltas: torch.Tensor) -> float:
    """The largest error of `out`, which is `keys` [n, heads, d] turned by `deltas` [n]."""
    half = torch.arange(rope.rotary_dim // 2)
    left, right = half, half + len(half)
    if rope.pairing == "interleaved":
        left, right = 2 * half, 2 * half + 1
    x, y = keys.double().cpu(), out.double().cpu()
    angles = deltas.double()[:, None, None] * rope.inv_freq
    exact = torch.complex(x[..., left], x[..., right]) * torch.polar(
        torch.ones_like(angles), angles
    )
    unit = torch.finfo(out.dtype).eps * exact.abs().log2().floor().exp2()
    errors = ((y[..., left] - exact.real).abs(), (y[..., right] - exact.imag).abs())
    return max(float((error / unit).max()) for error in errors)


def decoded(dtype: torch.dtype) -> float:
    """Error relative to the largest value: 3 sequences, up to 126 segments, split and merged."""
    return max(
        attended(dtype, heads, dim, [[1000], [60] * 8, [1, 9, 14] * 42], 1)
        for heads, dim in (((8, 2), 128), ((4, 4), 80))
    )


def extended(dtype: torch.dtype) -> float:
    """The same for chunks of 40 queries."""
    return attended(dtype, (8, 2), 128, [[300], [60] * 8, [1, 9, 14] * 20], 40)


def latents(dtype: torch.dtype) -> float:
    """The same for decode over latents, 64 + 512."""
    return attended(dtype, (16, 1), 576, [[500], [3] * 60], 1)


def attended(
    dtype: torch.dtype,
    heads: tuple[int, int],
    dim: int,
    sequences: list[list[int]],
    queries: int,
) -> float:
    """Segments of these lengths at random offsets, queries at each sequence's end."""
    rng, batch, slot = np.random.default_rng(0), [], 0
    for lengths in sequences:
        segments = []
        for length in lengths:
            segments.append(Segment(slot, length, int(rng.integers(-2000, 2000))))
            slot += length + 1
        batch.append(Rows(segments, np.arange(sum(lengths) - queries, sum(lengths))))
    query = torch.randn(heads[0], queries * len(batch), dim, device=DEVICE).to(dtype)
    keys, values = torch.randn(2, slot, heads[1], dim, device=DEVICE).to(dtype)
    rope = make_rope(64, "half")
    if dim == 576:
        values, rope = keys[..., 64:], make_rope(64, "interleaved")
    rest = {"rope": rope, "scale": dim**-0.5}
    exact = segment_attention_reference(query, keys, values, batch, **rest)
    out = segment_attend(query, keys, values, batch, **rest)
    return float((out.double() - exact).abs().max() / exact.abs().max())


ATTENTION = (1e-5, 1e-3, 1e-2)
KERNELS = [
    Kernel("KV store, numbers that differ", stored, (0, 0, 0)),
    Kernel("rope shift, ulp", shifted, (1, 1, 1)),
    Kernel("segment decode, of the largest value", decoded, ATTENTION),
    Kernel("segment extend", extended, ATTENTION),
    Kernel("segment decode over latents", latents, ATTENTION),
]


def measure() -> list[tuple[Kernel, list[float]]]:
    """Each kernel's largest errors, in the order of `DTYPES`."""
    torch.manual_seed(0)
    with np.errstate(all="ignore"):  # the interpreter computes with numpy
        return [(kernel, [kernel.worst(dtype) for dtype in DTYPES]) for kernel in KERNELS]


def main() -> None:
    """Print the table."""
    names = [str(dtype).removeprefix("torch.") for dtype in DTYPES]
    print(f"| kernel | {' | '.join(names)} | at most |")
    print(f"| --- |{' --- |' * (len(names) + 1)}")
    for kernel, errors in measure():
        figures = " | ".join(f"{error:.2g}" for error in errors)
        print(f"| {kernel.name} | {figures} | {', '.join(f'{p:g}' for p in kernel.promised)} |")


if __name__ == "__main__":
    main()
