"""Executors: one forward pass over the fresh tokens of several sequences.

`TorchExecutor` runs the model. `CountingExecutor` computes nothing and lets the same engine do
its accounting at any length (`leyline replay --tokens-only`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.decode_graphs import decode_graphs
from leyline_agent.serving.kernels.backend import AttentionBackend, Plan, Positions, Rows
from leyline_agent.serving.kv.sequence import Segment, slice_segments
from leyline_agent.serving.kv.slots import Extent
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.work import Computed, Work

__all__ = ["Computed", "CountingExecutor", "Executor", "TorchExecutor", "Work"]


class Executor(Protocol):
    """Computes the fresh tokens of sequences."""

    def forward(self, batch: Sequence[Work]) -> list[Computed]:
        """Fill the slots of all positions in one pass. A sequence is in a batch once."""
        ...

    def zero(self, extents: Sequence[Extent]) -> None:
        """Overwrite slots with zeros, and drop all copies of them."""
        ...


class CountingExecutor:
    """Does the accounting and no arithmetic."""

    def forward(self, batch: Sequence[Work]) -> list[Computed]:
        """Nothing to compute."""
        return [Computed()] * len(batch)

    def zero(self, extents: Sequence[Extent]) -> None:
        """There is nothing to overwrite."""


class TorchExecutor:
    """Runs a transformers model over a KV store.

    Everything is on the model's device. On a GPU decode steps are captured graphs where
    LEYLINE_CUDA_GRAPHS=1 asks for it and they can be. Nothing waits for that device between the
    first layer and the logits, but in mixture-of-experts layers, where transformers reads on the
    host which experts were chosen.

    Args:
        model: the model.
        store: where keys and values live.
        backend: stores and attends.
    """

    def __init__(self, model: LoadedModel, store: KVStore, backend: AttentionBackend[Any]) -> None:
        self.model = model
        self.store = store
        self.backend = backend
        self.graphs = decode_graphs(self.compute, model.model, backend, store.device)

    @torch.inference_mode()
    def forward(self, batch: Sequence[Work]) -> list[Computed]:
        """Fill the slots of all positions; the rows of the batch lie one behind the other."""
        if not all(len(work.positions) for work in batch):
            raise ValueError("a forward pass needs at least one position of every sequence")
        rows = [_rows(work) for work in batch]
        ids = np.concatenate([_tokens(work) for work in batch])
        wanted = [_wanted(work, end) for work, end in zip(batch, _ends(batch), strict=True)]
        copy_us: Sequence[float] = (0.0,) * len(batch)
        logits = None
        if self.graphs is not None and all(len(work.positions) == 1 for work in batch):
            logits = self.graphs.step(rows, ids)
        if logits is None:
            plan = self.backend.plan(rows)
            copy_us = plan.copy_us
            where = np.concatenate([work.positions for work in batch])
            logits = self.compute(plan, *map(self._place, (ids, where, np.concatenate(wanted))))
        parts = torch.split(logits, [len(own) for own in wanted])
        return [
            Computed(own if work.every else own[-1], spent)
            for work, own, spent in zip(batch, parts, copy_us, strict=True)
        ]

    def compute(self, plan: Plan, ids: Tensor, where: Tensor, wanted: Tensor) -> Tensor:
        """Float32 logits [wanted, vocab] of some of the rows."""
        network: Any = self.model.model
        out = network(
            input_ids=ids[None],
            position_ids=where[None],
            use_cache=False,
            # As an index, not as a count: the slice a count makes is not contiguous, and for that
            # torch copies the whole output embedding, which costs more than a short turn.
            logits_to_keep=wanted,
            leyline=_Pass(self.backend, plan),
        )
        logits: Tensor = out.logits[0].float()
        return logits

    def _place(self, array: Positions) -> Tensor:
        return torch.from_numpy(array).to(self.store.device)

    def zero(self, extents: Sequence[Extent]) -> None:
        """Overwrite slots with zeros, and drop the copies, which may hold them too."""
        self.store.zero(extents)
        self.backend.drop()


class _Pass:
    """What every attention layer of one forward pass does (`models.glue.Attend`)."""

    def __init__(self, backend: AttentionBackend[Any], plan: Any) -> None:
        self.backend = backend
        self.plan = plan

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, options: Any
    ) -> Tensor:
        self.backend.store(self.plan, layer, key, value)
        return self.backend.attend(self.plan, layer, query, scale)


def _rows(work: Work) -> Rows:
    end = int(work.positions[-1]) + 1
    segments: Sequence[Segment] = work.sequence.segments
    if end < len(work.sequence):
        segments = list(slice_segments(segments, 0, end))
    return Rows(segments, work.positions)


def _tokens(work: Work) -> Positions:
    tokens, positions = work.sequence.tokens, work.positions
    return np.fromiter((tokens[p] for p in positions.tolist()), np.int64, len(positions))


def _ends(batch: Sequence[Work]) -> list[int]:
    """Where each sequence's rows end."""
    return list(accumulate(len(work.positions) for work in batch))


def _wanted(work: Work, end: int) -> Positions:
    """The rows whose logits are wanted."""
    return np.arange(end - len(work.positions) if work.every else end - 1, end)
