"""Decode graphs: one decode step of a dense model, captured once a batch size and replayed.

A decode step is some hundred small kernels; starting them takes the host longer than they run. A
CUDA graph starts them all at once, but reads and writes where it did when it was captured. So the
batch is padded to one of a few sizes, its plan, tokens and positions are filled into memory that
stays, and the graph of that size is replayed. What does not fit is run eagerly.

Without a device nothing is captured: the same step over the same memory is computed again, which is
how this is tested. Capture itself needs a GPU to be tested on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from leyline_agent.serving.kernels.backend import Plan, Positions, Rows

__all__ = ["BUCKETS", "VARIABLE", "Compute", "DecodeGraphs", "StaticBackend", "decode_graphs"]

VARIABLE = "LEYLINE_CUDA_GRAPHS"
BUCKETS = (1, 2, 4, 8, 16, 32, 64)

_log = logging.getLogger("leyline.serving.decode_graphs")


class Fillable(Plan, Protocol):
    """A plan in memory that stays."""

    def fill(self, batch: Sequence[Rows]) -> bool:
        """Plan `batch`, one query a sequence; False, and nothing changed, if it does not fit."""
        ...


class StaticBackend(Protocol):
    """A backend whose plans can be filled again."""

    def static_plan(self, rows: int, *, moved: bool) -> Fillable | None:
        """A plan of `rows` sequences; None before the first eager pass."""
        ...


Compute = Callable[[Plan, Tensor, Tensor, Tensor], Tensor]
"""The model: plan, tokens [n], positions [n], rows wanted [k] -> float32 logits [k, vocab]."""


class DecodeGraphs:
    """The decode steps of one model.

    Args:
        compute: runs the model.
        backend: whose plans can be filled again.
        device: where the model is.
        capture: whether to capture; without, steps are computed again.
    """

    def __init__(
        self, compute: Compute, backend: StaticBackend, device: torch.device, *, capture: bool
    ) -> None:
        self.compute = compute
        self.backend = backend
        self.device = device
        self.capture = capture
        self.failed = False
        self._steps: dict[tuple[int, bool], _Step] = {}

    def step(self, batch: Sequence[Rows], tokens: Positions) -> Tensor | None:
        """Logits [sequences, vocab] of one new token each; None where it has to be done eagerly."""
        rows = next((size for size in BUCKETS if size >= len(batch)), None)
        if rows is None or self.failed:
            return None
        moved = any(segment.offset for sequence in batch for segment in sequence.segments)
        for kind in dict.fromkeys(
            (moved, True)
        ):  # short segments need the second kind, moved or not
            step = self._step(rows, kind)
            if step is not None and step.fill(batch, tokens):
                return self._run(step, len(batch))
        return None

    def _step(self, rows: int, moved: bool) -> _Step | None:
        if (rows, moved) not in self._steps:
            plan = self.backend.static_plan(rows, moved=moved)
            if plan is None:
                return None
            self._steps[rows, moved] = _Step(self.compute, plan, rows, self.device)
        return self._steps[rows, moved]

    def _run(self, step: _Step, size: int) -> Tensor | None:
        if not self.capture:
            return step.compute()[:size]
        try:
            # A copy: the next replay writes the same memory, and these may still be wanted then.
            return step.replay()[:size].clone()
        except RuntimeError as error:
            self.failed = True
            _log.warning("decode steps cannot be captured and run eagerly, slower: %s", error)
            return None


class _Step:
    """A decode step of one batch size, in memory that stays."""

    def __init__(self, compute: Compute, plan: Fillable, rows: int, device: torch.device) -> None:
        self._compute = compute
        self._plan = plan
        self._inputs = torch.zeros((2, rows), dtype=torch.int64, device=device)
        self._wanted = torch.arange(rows, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits: Tensor | None = None

    def fill(self, batch: Sequence[Rows], tokens: Positions) -> bool:
        """Fill in a batch; padding computes token 0 at position 0 over no keys."""
        if not self._plan.fill(batch):
            return False
        inputs = np.zeros(tuple(self._inputs.shape), np.int64)
        inputs[0, : len(batch)] = tokens
        inputs[1, : len(batch)] = [sequence.positions[0] for sequence in batch]
        host = torch.from_numpy(inputs)
        if self._inputs.device.type == "cuda":
            host = host.pin_memory()
        self._inputs.copy_(host, non_blocking=True)
        return True

    def compute(self) -> Tensor:
        """Logits of all rows, padding too."""
        return self._compute(self._plan, self._inputs[0], self._inputs[1], self._wanted)

    def replay(self) -> Tensor:
        """The same by the captured graph, captured on first use."""
        if self._graph is None:
            self._capture()
        assert self._graph is not None
        assert self._logits is not None
        self._graph.replay()
        return self._logits

    def _capture(self) -> None:
        """Compile and warm up on a stream of its own, as capture demands, then capture."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._logits = self.compute()
        self._graph = graph


def decode_graphs(
    compute: Compute, network: nn.Module, backend: Any, device: torch.device
) -> DecodeGraphs | None:
    """Graphs for a model on a GPU, with LEYLINE_CUDA_GRAPHS=1; None otherwise.

    Asked for, not a default, until a GPU has run their test. Layers that choose experts read on
    the host which: no graph holds that.
    """
    if device.type != "cuda" or not hasattr(backend, "static_plan"):
        return None
    if os.environ.get(VARIABLE) != "1" or has_experts(network):
        return None
    return DecodeGraphs(compute, backend, device, capture=True)


def has_experts(network: nn.Module) -> bool:
    """Whether any layer chooses experts."""
    return any("experts" in name.rpartition(".")[2] for name, _ in network.named_modules())
