"""Rotary positions: what an engine must know of a model's RoPE to move cached keys.

R(d) R(p) = R(p + d) whenever the inverse frequencies do not depend on the length, so a key
rotated at p stands at p + d after one more rotation by d. Cosines and sines of a delta are made
in float64 on the host; magnitudes (YaRN's attention factor) are already on the cached key and
are never applied again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Pairing", "RopeSpec"]

Pairing = Literal["half", "interleaved"]


@dataclass(frozen=True)
class RopeSpec:
    """A model's rotation.

    Attributes:
        inv_freq: float64 [rotary_dim / 2], scaled as the model scales it.
        pairing: "half" pairs i with i + rotary_dim/2 (NeoX: Llama, Qwen); "interleaved" pairs
            2i with 2i + 1 (GPT-J: DeepSeek, Cohere).
    """

    inv_freq: Tensor
    pairing: Pairing

    @property
    def rotary_dim(self) -> int:
        """How many leading dimensions of a head are rotated."""
        return 2 * self.inv_freq.numel()

    def tables(self, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """Float32 cosines and sines [n, rotary_dim / 2] of integer `deltas` [n]."""
        angles = deltas.to(torch.float64)[:, None] * self.inv_freq[None, :]
        return angles.cos().to(torch.float32), angles.sin().to(torch.float32)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x` [..., head_dim] rotated in float32, in x's dtype.

        `cos` and `sin` broadcast against [..., rotary_dim / 2].
        """
        out = torch.empty_like(x)
        self.rotate_into(x, cos, sin, out)
        return out

    def rotate_into(self, x: Tensor, cos: Tensor, sin: Tensor, out: Tensor) -> None:
        """Write `x` rotated into `out` (same shape and dtype, not overlapping)."""
        dim = self.rotary_dim
        if self.pairing == "half":
            first, second = slice(0, dim // 2), slice(dim // 2, dim)
        else:
            first, second = slice(0, dim, 2), slice(1, dim, 2)
        wide = x[..., :dim].to(torch.float32)
        x1, x2 = wide[..., first], wide[..., second]
        out[..., first] = torch.addcmul(x1 * cos, x2, sin, value=-1)
        out[..., second] = torch.addcmul(x2 * cos, x1, sin)
        if dim < x.shape[-1]:
            out[..., dim:] = x[..., dim:]
