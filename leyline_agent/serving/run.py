"""Runs: one prompt on its way through the engine, and the reply behind it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from leyline_agent.errors import EngineError, OutOfSlots
from leyline_agent.receipt import Receipt
from leyline_agent.serving.modes import Settled
from leyline_agent.serving.work import Cached, Computed, Logits, Work

if TYPE_CHECKING:
    from leyline_agent.serving.host import Host
    from leyline_agent.serving.kernels.backend import Positions

__all__ = ["Need", "Run"]


@dataclass(eq=False)
class Run:
    """A prompt that is computed, chunk by chunk, and then continued.

    Who computes is somebody else: `Engine.compute` does for one run or for many at once.

    Attributes:
        sequence: tokens and KV, prompt first; owned by the run until `finish` hands it on.
        pending: positions still to be computed, ascending: of the prompt, or of what was appended.
        receipt: what the prompt costs.
        settled: the directives as carried out.
        logits: float32 [vocab] of the last token, when nothing is pending; None where no model
            runs.
        owner: whose entries in the tenant's tree it makes.
        seconds: spent on the prompt so far.
    """

    engine: Host
    tenant: str
    sequence: Cached
    pending: Positions
    receipt: Receipt
    settled: Settled
    logits: Logits | None = None
    owner: str = ""
    seconds: float = 0.0
    _open: bool = field(default=True, repr=False)
    _copy_us: float = field(default=0.0, repr=False)
    _computed: int | None = field(default=None, repr=False)  # leading tokens; None: prompt pends
    _rows: list[Logits] | None = field(default=None, repr=False)  # logits of scored tokens
    _before: Logits | None = field(default=None, repr=False)  # logits in front of what was appended

    def prefill(self) -> None:
        """Compute the next chunk of the prompt; the last one completes the receipt."""
        self.engine.compute([(self, self.engine.config.chunk)])

    def step(self, token: int) -> Logits | None:
        """Append one token and compute the logits behind it."""
        return self.extend([token])

    def extend(self, tokens: Sequence[int]) -> Logits | None:
        """Append tokens (sampled, or known beforehand) and compute the logits behind them.

        Raises:
            OutOfSlots: nothing can be evicted; the run stays as it was.
            ContextOverflow: past the model's context length.
        """
        self.append(tokens)
        self._compute()
        return self.logits

    def score(self, tokens: Sequence[int]) -> Logits | None:
        """Append known tokens; float32 logits [len(tokens), vocab] that *predicted* each.

        Row i is what the model said before it read token i. None where no model runs.
        """
        self.append(tokens, score=True)
        self._compute()
        return self.scored()

    def append(self, tokens: Sequence[int], *, score: bool = False) -> None:
        """Append tokens that somebody will compute, for `scored` if they are to be scored.

        Raises what `extend` does.
        """
        if self._computed is None or len(self.pending):
            raise EngineError("the prompt is not computed yet; call prefill until nothing pends")
        start = len(self.sequence)
        self.engine.check_length(start + len(tokens))
        self.engine.with_room(len(tokens), lambda: self.sequence.extend(tokens))
        self.pending = np.arange(start, len(self.sequence), dtype=np.int64)
        self._before = self.logits
        self._rows = [self.logits[None]] if score and self.logits is not None else None

    def scored(self) -> Logits | None:
        """What `score` returns, once nothing pends."""
        return None if self._rows is None else self.engine.joined(self._rows)[:-1]

    def computing(self) -> Generator[Run, None, None]:
        """Yield the run until somebody has computed what pends; what then fails is taken back."""
        try:
            while len(self.pending):
                yield self
        except BaseException:
            self._take_back()
            raise

    def work(self, limit: int) -> Work:
        """What to compute next, at most `limit` tokens."""
        return Work(self.sequence, self.pending[:limit], every=self._rows is not None)

    def computed(self, work: Work, result: Computed, seconds: float) -> None:
        """Take note of a forward pass that did `work`."""
        self.pending = self.pending[len(work.positions) :]
        self.logits = result.logits
        if self._rows is not None and result.logits is not None:
            self._rows.append(result.logits)
            self.logits = result.logits[-1]
        if self._computed is None:
            self._copy_us += result.copy_us
            self.seconds += seconds
            if not len(self.pending):
                spent = {"ttft_ms": self.seconds * 1e3, "copy_us": self._copy_us}
                self.receipt = self.receipt.model_copy(update=spent)
        if not len(self.pending):
            self._computed = len(self.sequence)

    def _compute(self) -> None:
        for _ in self.computing():
            self.prefill()

    def _take_back(self) -> None:
        """Drop appended tokens: slots that hold nothing yet must reach no tree."""
        if self._computed is not None and len(self.pending):
            self.sequence.truncate(self._computed)
            self.pending = self.pending[:0]
            self.logits = self._before

    def finish(self) -> Cached:
        """End the run: canonical KV may serve the tenant, the sequence goes to the caller."""
        if not self._open or len(self.pending):
            raise EngineError("this run has ended, or its prompt is not computed yet")
        self._open = False
        self.engine.keep(self)
        return self.sequence

    def abandon(self) -> None:
        """End the run and drop its sequence; canonical KV stays with the engine. Safe to repeat."""
        if not self._open:
            return
        self._take_back()
        if not len(self.pending):
            self.finish()
        self._open = False
        self.sequence.release()


Need = Run | OutOfSlots
"""What steps wait for: a run to be computed, or the room they lack."""
