"""Runs: one prompt on its way through the engine, and the reply behind it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.receipt import Receipt
from leyline_agent.serving.kernels.backend import Positions
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.modes import Settled

if TYPE_CHECKING:
    from leyline_agent.serving.engine import Engine

__all__ = ["Run"]


@dataclass
class Run:
    """A prompt that is computed, chunk by chunk, and then continued.

    Attributes:
        sequence: tokens and KV, prompt first; owned by the run until `finish` hands it on.
        pending: positions of the prompt still to be computed, ascending.
        receipt: what the prompt costs.
        settled: the directives as carried out.
        logits: float32 [vocab] of the last token, when nothing is pending; None where no model
            runs.
        owner: whose entries in the tenant's tree it makes.
        seconds: spent on the prompt so far.
    """

    engine: Engine
    tenant: str
    sequence: CachedSequence
    pending: Positions
    receipt: Receipt
    settled: Settled
    logits: Tensor | None = None
    owner: str = ""
    seconds: float = 0.0
    _open: bool = field(default=True, repr=False)
    _copy_us: float = field(default=0.0, repr=False)

    def prefill(self) -> None:
        """Compute the next chunk of the prompt; the last one completes the receipt."""
        executor, size = self.engine.executor, self.engine.config.chunk
        started = time.perf_counter()
        executor.copy_us()
        self.logits = executor.forward(self.sequence, self.pending[:size])
        self.pending = self.pending[size:]
        self._copy_us += executor.copy_us()
        self.seconds += time.perf_counter() - started
        if not len(self.pending):
            spent = {"ttft_ms": self.seconds * 1e3, "copy_us": self._copy_us}
            self.receipt = self.receipt.model_copy(update=spent)

    def step(self, token: int) -> Tensor | None:
        """Append one token and compute the logits behind it."""
        return self.extend([token])

    def extend(self, tokens: Sequence[int]) -> Tensor | None:
        """Append tokens (sampled, or known beforehand) and compute the logits behind them.

        Raises:
            OutOfSlots: nothing can be evicted; the run stays as it was.
            ContextOverflow: past the model's context length.
        """
        self.logits = self._compute(tokens)
        return self.logits

    def score(self, tokens: Sequence[int]) -> Tensor | None:
        """Append known tokens; float32 logits [len(tokens), vocab] that *predicted* each.

        Row i is what the model said before it read token i. None where no model runs.
        """
        before = self.logits
        after = self._compute(tokens, every=True)
        if before is None or after is None:
            return None
        self.logits = after[-1]
        return torch.cat((before[None], after[:-1]))

    def _compute(self, tokens: Sequence[int], *, every: bool = False) -> Tensor | None:
        if len(self.pending):
            raise EngineError("the prompt is not computed yet; call prefill until nothing pends")
        start = len(self.sequence)
        self.engine.check_length(start + len(tokens))
        self.engine.with_room(len(tokens), lambda: self.sequence.extend(tokens))
        positions = np.arange(start, len(self.sequence), dtype=np.int64)
        try:
            return self.engine.executor.forward(self.sequence, positions, every=every)
        except BaseException:
            self.sequence.truncate(start)  # its slots hold nothing yet and must reach no tree
            raise

    def finish(self) -> CachedSequence:
        """End the run: canonical KV goes into the tenant's tree, the sequence to the caller."""
        if not self._open or len(self.pending):
            raise EngineError("this run has ended, or its prompt is not computed yet")
        self._open = False
        length = self.sequence.canonical_len
        if length:
            tree = self.engine.forest.tree(self.tenant)
            extents = self.sequence.extents(0, length)
            tree.insert(self.sequence.tokens[:length], extents, self.owner)
        return self.sequence

    def abandon(self) -> None:
        """End the run and drop its sequence; canonical KV stays in the tree. Safe to repeat."""
        if not self._open:
            return
        if not len(self.pending):
            self.finish()
        self._open = False
        self.sequence.release()
