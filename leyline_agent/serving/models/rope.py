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
        others: the inverse frequencies of further kinds of layers, as long (Gemma 3's global
            layers turn slower; zeros where a layer knows no positions, as in SmolLM3).
    """

    inv_freq: Tensor
    pairing: Pairing
    others: tuple[Tensor, ...] = ()

    @property
    def kinds(self) -> tuple[RopeSpec, ...]:
        """The rotation of each kind of layers, by `KVShape.rope`."""
        return (self, *(RopeSpec(other, self.pairing) for other in self.others))

    @property
    def rotary_dim(self) -> int:
        """How many leading dimensions of a head are rotated."""
        return 2 * self.inv_freq.numel()

    def tables(self, deltas: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines [n, rotary_dim] of integer `deltas` [n], rounded to `dtype`.

        Laid out so that a rotation is x * cos + swap(x) * sin, swap exchanging paired entries.
        """
        angles = deltas.to(torch.float64)[:, None] * self.inv_freq[None, :]
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        if self.pairing == "half":
            return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        return cos.repeat_interleave(2, -1), torch.stack((-sin, sin), -1).flatten(-2)

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`x` [..., head_dim] rotated in the tables' dtype, in x's own.

        `cos` and `sin` are rows of `tables`; they broadcast against [..., rotary_dim].
        """
        dim = self.rotary_dim
        wide = x[..., :dim].to(cos.dtype)
        rotated = wide * cos
        if self.pairing == "half":
            half = dim // 2
            rotated[..., :half].addcmul_(wide[..., half:], sin[..., :half])
            rotated[..., half:].addcmul_(wide[..., :half], sin[..., half:])
        else:
            rotated[..., 0::2].addcmul_(wide[..., 1::2], sin[..., 0::2])
            rotated[..., 1::2].addcmul_(wide[..., 0::2], sin[..., 1::2])
        rotated = rotated.to(x.dtype)
        return rotated if dim == x.shape[-1] else torch.cat((rotated, x[..., dim:]), -1)
