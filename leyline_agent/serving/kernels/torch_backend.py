"""The torch backend: attention sequence by sequence, with working copies of those in many pieces.

The path for CPUs, and for any device the kernels cannot serve. What the rows of a batch can share
they do: the model's layers run once over all of them, and their keys are stored by one call.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Positions, Rows
from leyline_agent.serving.kernels.segment_attention import (
    AttentionPlan,
    plan_attention,
    segment_attention,
)
from leyline_agent.serving.kv.copies import WorkingCopies
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.kv.working_copy import WorkingCopy
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["MAX_SEGMENTS", "TorchBackend", "TorchPlan"]

# Above this many segments a working copy is cheaper than one attention call a segment and layer:
# 24 tokens decoded at 6 k took 5 to 25 % longer in 8 segments, and no longer in a copy of them.
MAX_SEGMENTS = 4
# More runs of slots than this are written by one indexed call instead of a call each.
_MAX_RUNS = 2


@dataclass(frozen=True)
class _Places:
    """Where rows are stored: a few runs (first row, end row, first slot), else an index [rows]."""

    runs: tuple[tuple[int, int, int], ...]
    index: Tensor | None

    @classmethod
    def of(cls, slots: Positions, device: torch.device) -> _Places:
        """Rows 0, 1, ... go to `slots`."""
        breaks = np.flatnonzero(np.diff(slots) != 1) + 1
        if len(breaks) >= _MAX_RUNS:
            return cls((), torch.from_numpy(slots).to(device))
        edges = [0, *breaks.tolist(), len(slots)]
        return cls(
            tuple((a, b, int(slots[a])) for a, b in zip(edges[:-1], edges[1:], strict=True)), None
        )

    def put(self, rows: Tensor, into: Tensor) -> None:
        """Copy `rows` [heads, n, d] into `into` [slots, heads, d]."""
        rows = rows.transpose(0, 1)
        if self.index is not None:
            into.index_copy_(0, self.index, rows)
        for start, end, slot in self.runs:
            into[slot : slot + end - start] = rows[start:end]


@dataclass(frozen=True)
class _Part:
    """One sequence's rows [start, end), planned for each window and rotation of the model."""

    start: int
    end: int
    plans: dict[tuple[int | None, int], AttentionPlan]
    copy: WorkingCopy | None
    copy_places: _Places | None


@dataclass(frozen=True)
class TorchPlan:
    """One forward pass over a batch.

    Attributes:
        copy_us: host microseconds spent on each sequence's working copy.
    """

    parts: tuple[_Part, ...]
    places: _Places
    copy_us: tuple[float, ...]


class TorchBackend:
    """Stores and attends with torch operators.

    Args:
        store: where keys and values live.
        pool: whose slots they are.
        rope: how keys are rotated; None where none can be moved.
        max_segments: above this many segments a sequence gets a working copy.
        copy_bytes: what working copies may take; without room a sequence is read where it lies.
    """

    def __init__(
        self,
        store: KVStore,
        pool: SlotPool,
        rope: RopeSpec | None,
        *,
        max_segments: int = MAX_SEGMENTS,
        copy_bytes: int,
    ) -> None:
        self.kv = store
        self._ropes = (None,) if rope is None else rope.kinds
        self.max_segments = max_segments
        self.copies = WorkingCopies(store, pool, rope, copy_bytes)
        self._kinds = {(layer.window, layer.rope) for layer in store.layers}

    def plan(self, batch: Sequence[Rows]) -> TorchPlan:
        """Plan each sequence's attention; make or bring up to date the copies they need."""
        parts: list[_Part] = []
        spent: list[float] = []
        taken: list[WorkingCopy] = []
        at = 0
        for rows in batch:
            started = time.perf_counter()
            copy = None
            if len(rows.segments) > self.max_segments:
                copy = self.copies.take(rows.segments, taken)
            spent.append((time.perf_counter() - started) * 1e6 if copy is not None else 0.0)
            if copy is not None:
                taken.append(copy)
            parts.append(self._part(rows, at, copy))
            at = parts[-1].end
        places = _Places.of(np.concatenate([rows.slots for rows in batch]), self.kv.device)
        return TorchPlan(tuple(parts), places, tuple(spent))

    def _part(self, rows: Rows, at: int, copy: WorkingCopy | None) -> _Part:
        segments, positions = rows
        if copy is not None:
            segments = [Segment(0, sum(segment.length for segment in segments))]
        plans = {
            (window, rope): plan_attention(
                segments,
                positions,
                self._ropes[rope],
                window=window,
                dtype=self.kv.dtype,
                device=self.kv.device,
            )
            for window, rope in self._kinds
        }
        places = _Places.of(positions, self.kv.device) if copy is not None else None
        return _Part(at, at + len(positions), plans, copy, places)

    def store(self, plan: TorchPlan, layer: int, key: Tensor, value: Tensor) -> None:
        """Write the rows' keys and values into their slots, and into the copies."""
        self._put(self.kv, layer, plan.places, key, value)
        for part in plan.parts:
            if part.copy is not None and part.copy_places is not None:
                rows = slice(part.start, part.end)
                self._put(part.copy, layer, part.copy_places, key[:, rows], value[:, rows])

    def _put(
        self, kv: KVStore | WorkingCopy, layer: int, places: _Places, key: Tensor, value: Tensor
    ) -> None:
        places.put(key, kv.keys[layer])
        if not self.kv.layers[layer].latent:  # else the values are part of the keys
            places.put(value, kv.values[layer])

    def attend(self, plan: TorchPlan, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attention output [total, heads, d_v]."""
        parts = [self._attend(part, layer, query, scale) for part in plan.parts]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _attend(self, part: _Part, layer: int, query: Tensor, scale: float) -> Tensor:
        kv, shape = part.copy or self.kv, self.kv.layers[layer]
        return segment_attention(
            query[:, part.start : part.end],
            kv.keys[layer],
            kv.values[layer],
            part.plans[shape.window, shape.rope],
            scale,
        )

    def drop(self) -> int:
        """Free the working copies; returns the bytes freed."""
        return self.copies.drop()
