"""The tensors behind the slots: keys and values of every layer.

    keys[layer]    [slots, kv_heads, key_dim]      rotated at pool.positions[slot], never again
    values[layer]  [slots, kv_heads, value_dim]    of latents (MLA): a view, the keys' last entries

Memory is reserved for all slots and, on a CPU, touched only as slots fill.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kv.slots import Extent
from leyline_agent.serving.models.probe import KVShape

__all__ = ["KVStore", "bytes_per_token"]


def bytes_per_token(layers: Sequence[KVShape], dtype: torch.dtype) -> int:
    """Bytes of KV one token takes in all layers."""
    return sum(shape.num_entries for shape in layers) * dtype.itemsize


class KVStore:
    """Keys and values of `num_slots` tokens.

    Args:
        layers: each layer's KV shape.
        num_slots: how many tokens it holds.
        dtype: of the stored keys and values.
        device: where they live.
    """

    def __init__(
        self,
        layers: Sequence[KVShape],
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        if num_slots < 1:
            raise EngineError(f"a KV store needs at least one slot, not {num_slots}")
        self.layers = tuple(layers)
        self.num_slots = num_slots
        self.dtype = dtype
        self.bytes_per_token = bytes_per_token(layers, dtype)
        self.device = torch.device(device)
        self.keys, self.values = self.empty(num_slots)

    def empty(self, num_tokens: int) -> tuple[list[Tensor], list[Tensor]]:
        """Unfilled keys and values of `num_tokens` tokens, laid out as the store's own."""
        keys = [self._unfilled(num_tokens, s.heads, s.key_dim) for s in self.layers]
        values = [
            key[..., s.key_dim - s.value_dim :]
            if s.latent
            else self._unfilled(num_tokens, s.heads, s.value_dim)
            for s, key in zip(self.layers, keys, strict=True)
        ]
        return keys, values

    def _unfilled(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def zero(self, extents: Iterable[Extent]) -> None:
        """Overwrite slots with zeros: what was there cannot be read again."""
        for start, end in extents:
            for layer in range(len(self.layers)):
                self.keys[layer][start:end] = 0
                self.values[layer][start:end] = 0
