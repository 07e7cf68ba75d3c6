"""The seam between the executor and its kernels: how one forward pass stores and attends.

    plan = backend.plan(batch)                       once a forward pass, on the host
    for layer in model:
        backend.store(plan, layer, key, value)       new keys and values into their slots
        out = backend.attend(plan, layer, query, scale)

A batch has several sequences. Their rows lie one behind the other in every tensor:

    batch    sequence a (prefill)   b (decode)   c (repair, scattered)
    rows     [0 ............ 512)   [512, 513)   [513 ...... 540)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from torch import Tensor

from leyline_agent.serving.kv.sequence import Segment

__all__ = ["AttentionBackend", "Plan", "Positions", "Rows"]

Positions = np.ndarray[tuple[int], np.dtype[np.int64]]


class Rows(NamedTuple):
    """One sequence's part of a forward pass.

    Attributes:
        segments: the sequence up to and including the last query's slot.
        positions: the new tokens' logical positions, ascending. Each query sees the keys up to
            and including its own position.
    """

    segments: Sequence[Segment]
    positions: Positions

    @property
    def slots(self) -> Positions:
        """The slot of each new token."""
        starts = np.array([segment.slot for segment in self.segments])
        ends = np.array([segment.length for segment in self.segments]).cumsum()
        index = np.searchsorted(ends, self.positions, side="right")
        return starts[index] + self.positions - np.concatenate(([0], ends))[index]


class Plan(Protocol):
    """What a backend has worked out for one forward pass."""

    @property
    def copy_us(self) -> Sequence[float]:
        """Host microseconds spent on each sequence's working copy; 0 where it has none."""
        ...


PlanT = TypeVar("PlanT", bound=Plan)


class AttentionBackend(Protocol[PlanT]):
    """Stores and attends. Constructed with the KV store and the rope, which do not change.

    A layer's sliding window is the store's (`KVStore.layers`), so a plan covers them all.
    """

    def plan(self, batch: Sequence[Rows]) -> PlanT:
        """The host's work for one forward pass; used by all of its layers, and by no other pass."""
        ...

    def store(self, plan: PlanT, layer: int, key: Tensor, value: Tensor) -> None:
        """Write the rows' own keys [kv_heads, total, d] and values [kv_heads, total, d_v]."""
        ...

    def attend(self, plan: PlanT, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attention output [total, heads, d_v] of `query` [heads, total, d]; `store` came first.

        Args:
            plan: this pass's.
            layer: whose keys and values.
            query: rotated at its logical positions, in the store's dtype.
            scale: factor on the scores.
        """
        ...

    def drop(self) -> int:
        """Free what is kept beside the slots (working copies); returns the bytes freed."""
        ...
