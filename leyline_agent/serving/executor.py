"""Executors: the forward pass over the fresh tokens of a sequence.

`TorchExecutor` runs the model. `CountingExecutor` computes nothing and lets the same engine do
its accounting at any length (`leyline replay --tokens-only`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Positions
from leyline_agent.serving.kernels.segment_attention import (
    AttentionPlan,
    plan_attention,
    segment_attention,
)
from leyline_agent.serving.kv.sequence import CachedSequence, Segment, slice_segments
from leyline_agent.serving.kv.slots import Extent
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.kv.working_copy import WorkingCopy
from leyline_agent.serving.models.load import LoadedModel

__all__ = ["CountingExecutor", "Executor", "TorchExecutor"]

# Above this many segments a working copy is cheaper than one attention call a segment and layer.
MAX_SEGMENTS = 8
PREFILL_CHUNK = 1024


class Executor(Protocol):
    """Computes the fresh tokens of a sequence."""

    def forward(
        self, sequence: CachedSequence, positions: Positions, *, every: bool = False
    ) -> Tensor | None:
        """Fill the slots of `positions` (ascending); logits of the last one [vocab], float32.

        With `every`, logits of all of them [positions, vocab]. None where no model runs.
        """
        ...

    def copy_us(self) -> float:
        """Host microseconds spent on working copies since the last call."""
        ...

    def drop_copy(self) -> int:
        """Free the working copy; returns the bytes freed."""
        ...

    def zero(self, extents: Sequence[Extent]) -> None:
        """Overwrite slots with zeros."""
        ...


class CountingExecutor:
    """Does the accounting and no arithmetic."""

    def forward(
        self, sequence: CachedSequence, positions: Positions, *, every: bool = False
    ) -> Tensor | None:
        """Nothing to compute."""
        return None

    def copy_us(self) -> float:
        """No copies are made."""
        return 0.0

    def drop_copy(self) -> int:
        """There is none."""
        return 0

    def zero(self, extents: Sequence[Extent]) -> None:
        """There is nothing to overwrite."""


class TorchExecutor:
    """Runs a transformers model over a KV store.

    Args:
        model: the model.
        store: where keys and values live.
        max_segments: above this many segments the sequence gets a working copy.
        chunk: prefill at most this many tokens a forward pass.
    """

    def __init__(
        self,
        model: LoadedModel,
        store: KVStore,
        *,
        max_segments: int = MAX_SEGMENTS,
        chunk: int = PREFILL_CHUNK,
    ) -> None:
        self.model = model
        self.store = store
        self.max_segments = max_segments
        self.chunk = chunk
        self.copy: WorkingCopy | None = None
        self._copy_seconds = 0.0

    @torch.inference_mode()
    def forward(
        self, sequence: CachedSequence, positions: Positions, *, every: bool = False
    ) -> Tensor:
        """Fill the slots of `positions`; logits [vocab] of the last one, float32, or of all."""
        if not len(positions):
            raise ValueError("a forward pass needs at least one position")
        parts = [
            self._chunk(sequence, positions[start : start + self.chunk], every)
            for start in range(0, len(positions), self.chunk)
        ]
        return torch.cat(parts) if every else parts[-1][-1]

    def _chunk(self, sequence: CachedSequence, positions: Positions, every: bool) -> Tensor:
        """Logits [1, vocab] of the last position, or of every position."""
        end = int(positions[-1]) + 1
        segments = list(slice_segments(sequence.segments, 0, end))
        copy = self._copy_of(sequence, segments)
        attend = _Pass(self.store, segments, positions, self.model, copy)
        ids = torch.tensor([[sequence.tokens[p] for p in positions.tolist()]])
        where = torch.from_numpy(positions)[None]
        network: Any = self.model.model
        out = network(
            input_ids=ids,
            position_ids=where,
            use_cache=False,
            # As an index, not as a count: the slice a count makes is not contiguous, and for that
            # torch copies the whole output embedding, which costs more than a short turn.
            logits_to_keep=0 if every else torch.tensor([len(positions) - 1]),
            leyline=attend,
        )
        logits: Tensor = out.logits[0].float()
        return logits

    def _copy_of(self, sequence: CachedSequence, segments: list[Segment]) -> WorkingCopy | None:
        if len(segments) <= self.max_segments:
            return None
        started = time.perf_counter()
        if self.copy is None:
            self.copy = WorkingCopy(self.store, sequence.pool, self.model.facts.rope)
        self.copy.update(segments)
        self._copy_seconds += time.perf_counter() - started
        return self.copy

    def copy_us(self) -> float:
        """Host microseconds spent on working copies since the last call."""
        spent, self._copy_seconds = self._copy_seconds * 1e6, 0.0
        return spent

    def drop_copy(self) -> int:
        """Free the working copy; returns the bytes freed."""
        freed = self.copy.num_bytes if self.copy else 0
        self.copy = None
        return freed

    def zero(self, extents: Sequence[Extent]) -> None:
        """Overwrite slots with zeros, and drop the copy, which may hold them too."""
        self.store.zero(extents)
        self.drop_copy()


class _Pass:
    """One forward pass: stores the new keys and values, then attends, layer by layer."""

    def __init__(
        self,
        store: KVStore,
        segments: list[Segment],
        positions: Positions,
        model: LoadedModel,
        copy: WorkingCopy | None = None,
    ) -> None:
        self.store = store
        self.copy = copy
        self.positions = positions
        self.rope = model.facts.rope
        self.dtype = model.dtype
        self.segments = segments
        self._plans: dict[int | None, AttentionPlan] = {}
        self.writes = self._plan(None, segments).writes
        if copy is not None:
            length = sum(segment.length for segment in segments)
            self.segments = [Segment(0, length)]
            self._plans = {}
            self.copy_writes = self._plan(None, self.segments).writes

    def _plan(self, window: int | None, segments: list[Segment]) -> AttentionPlan:
        if window not in self._plans:
            self._plans[window] = plan_attention(
                segments, self.positions, self.rope, window=window, dtype=self.dtype
            )
        return self._plans[window]

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, options: Any
    ) -> Tensor:
        plan = self._plan(options.get("sliding_window"), self.segments)
        self.store.write(layer, self.writes, key, value)
        if self.copy is None:
            keys, values = self.store.keys[layer], self.store.values[layer]
        else:
            keys, values = self.copy.keys[layer], self.copy.values[layer]
            for start, end, at in self.copy_writes:
                keys[at : at + end - start] = key[:, start:end].transpose(0, 1)
                values[at : at + end - start] = value[:, start:end].transpose(0, 1)
        return segment_attention(query, keys, values, plan, scale)


def all_positions(start: int, end: int) -> Positions:
    """Positions [start, end) as an array."""
    return np.arange(start, end, dtype=np.int64)
