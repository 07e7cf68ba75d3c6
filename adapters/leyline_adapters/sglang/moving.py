"""Moving KV between slots of SGLang's pools: values as they are, keys turned by the distance.

    K[dst] = R(dst's position - src's position) K[src]        V[dst] = V[src]

in float32, every layer by the same plan. Keys of a copy that is copied again are rounded again:
claims that name the request where a text was first computed keep that from adding up.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.rope_shift import plan_shift, rope_shift
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["move", "same_rotation"]

ROWS = 1 << 14
# cos and sin of a table in bfloat16 differ by up to 2^-9 from exact ones; a scaled table
# (an attention factor, another frequency) by far more.
TOLERANCE = 6e-3
POSITIONS = 1024


def move(
    layers: list[tuple[Tensor, Tensor]],
    source: Tensor,
    target: Tensor,
    deltas: list[int],
    rope: RopeSpec,
) -> None:
    """Copy slots `source` [n] to slots `target` [n], which are others, in every layer.

    Args:
        layers: keys and values of each, [slots, kv_heads, d].
        source: int64.
        target: int64, all different.
        deltas: [n], how many positions each key moves on.
        rope: how keys are rotated.
    """
    for start in range(0, len(deltas), ROWS):
        rows = slice(start, start + ROWS)
        read, written = source[rows], target[rows]
        keys = layers[0][0]
        shift = plan_shift(
            read.cpu().numpy(),
            written.cpu().numpy(),
            np.asarray(deltas[rows], dtype=np.int64),
            rope,
            keys.dtype,
            keys.device,
        )
        for keys, values in layers:
            rope_shift(keys, keys, shift)
            values.index_copy_(0, written, values.index_select(0, read))


def same_rotation(table: Tensor, rope: RopeSpec) -> bool:
    """Whether a table of cosines and sines [positions, rotary_dim] turns by these frequencies.

    Measured, not believed: scaling that a class hides shows in its table.
    """
    count = min(len(table), POSITIONS)
    half = rope.inv_freq.numel()
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rope.inv_freq[None, :]
    expected = torch.cat((angles.cos(), angles.sin()), -1)
    found = table[:count].double().cpu()
    if found.shape != (count, 2 * half):
        return False
    return bool((found - expected).abs().max() < TOLERANCE)
