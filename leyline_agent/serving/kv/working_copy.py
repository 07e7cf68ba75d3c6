"""Working copies: one contiguous, fully rotated copy of an active sequence's KV.

Attention over a hundred short segments costs a hundred small calls a layer. Then it is cheaper to
gather the sequence once. A copy is always made from the canonical slots, rotated once by the
whole offset, never from another copy: errors do not add up. What is unchanged since the last
turn stays in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.checks import Slots
from leyline_agent.serving.kernels.rope_shift import plan_shift, rope_shift
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["Described", "WorkingCopy", "describe"]

Described = np.ndarray[tuple[int, int], np.dtype[np.int64]]

_HEADROOM = 512


def describe(segments: Sequence[Segment], pool: SlotPool) -> Described:
    """Slot, offset and epoch of every token: int64 [3, length]."""
    starts, lengths, offsets = np.array([s[:3] for s in segments], np.int64).T
    ends = lengths.cumsum()
    result = np.empty((3, ends[-1]), np.int64)
    slots = result[0]
    slots[:] = np.repeat(starts - (ends - lengths), lengths)
    slots += np.arange(ends[-1])
    result[1] = np.repeat(offsets, lengths)
    pool.epochs.take(slots, out=result[2])
    return result


class WorkingCopy:
    """Contiguous keys and values [length, kv_heads, d] of one sequence, a layer a tensor.

    Args:
        store: where the canonical slots are.
        pool: whose epochs tell whether a slot still holds what was copied.
        rope: how to rotate; None where no segment has an offset.
    """

    def __init__(self, store: KVStore, pool: SlotPool, rope: RopeSpec | None) -> None:
        self.store = store
        self.pool = pool
        self.rope = rope
        self.capacity = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._held: Described = np.empty((3, 0), np.int64)

    @property
    def num_bytes(self) -> int:
        """Bytes the copy takes."""
        return self.capacity * self.store.bytes_per_token

    def bytes_for(self, length: int) -> int:
        """Bytes it takes once it has held `length` tokens."""
        tokens = self.capacity if length <= self.capacity else length + _HEADROOM
        return tokens * self.store.bytes_per_token

    def shared_len(self, wanted: Described) -> int:
        """How many leading tokens of `wanted` the copy holds."""
        return _common_length(self._held, wanted)

    def update(self, segments: Sequence[Segment]) -> int:
        """Make the copy hold `segments`; returns how many tokens had to be gathered."""
        wanted = describe(segments, self.pool)
        length = wanted.shape[1]
        valid = self.shared_len(wanted)
        if length > self.capacity:
            self._grow(length + _HEADROOM, valid)
        self._held = wanted[:, :valid]  # should gathering fail, nothing stale is taken for good
        if valid < length:
            self._gather(wanted[0, valid:], wanted[1, valid:], valid)
        self._held = wanted
        return length - valid

    def invalidate(self) -> None:
        """Forget what the copy holds; the next update gathers everything."""
        self._held = np.empty((3, 0), np.int64)

    def _grow(self, capacity: int, valid: int) -> None:
        keys, values = self.store.empty(capacity)
        for fresh, old in ((keys, self.keys), (values, self.values)):
            for new, kept in zip(fresh, old, strict=False):
                new[:valid] = kept[:valid]
        self.keys, self.values, self.capacity = keys, values, capacity

    def _gather(self, slots: Slots, offsets: Slots, at: int) -> None:
        """Copy `slots` [n] to rows at.., their keys rotated by `offsets` [n]."""
        end = at + len(slots)
        index = torch.from_numpy(slots).to(self.store.device)
        for layer, shape in enumerate(self.store.layers):
            if not shape.latent:  # else they come with the keys
                values = self.store.values[layer]
                torch.index_select(values, 0, index, out=self.values[layer][at:end])
        moved = offsets.nonzero()[0]
        # From the first token that moved on, all are rotated: a turn by 0 changes nothing.
        still = int(moved[0]) if len(moved) else len(slots)
        for store, copy in zip(self.store.keys, self.keys, strict=True):
            torch.index_select(store, 0, index[:still], out=copy[at : at + still])
        if still == len(slots):
            return
        if self.rope is None:
            raise EngineError(
                "a segment stands where its keys were not rotated, and no rope moves it"
            )
        rows, deltas = slots[still:], offsets[still:]
        shifts = [
            plan_shift(rows, None, deltas, rope, self.store.dtype, self.store.device)
            for rope in self.rope.kinds
        ]
        for layer, shape in enumerate(self.store.layers):
            copy = self.keys[layer][at + still : end]
            rope_shift(self.store.keys[layer], copy, shifts[shape.rope])


def _common_length(left: Described, right: Described) -> int:
    """How many leading columns agree."""
    size = min(left.shape[1], right.shape[1])
    differs = (left[:, :size] != right[:, :size]).any(0)
    return int(differs.argmax()) if differs.any() else size
