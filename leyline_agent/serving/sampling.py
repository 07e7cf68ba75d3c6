"""Sampling: from the logits of one position to the next token."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from leyline_agent.errors import EngineError

__all__ = ["LogProbs", "Sampler", "log_probs"]

# The likeliest tokens almost always hold top_p; sorting a whole vocabulary costs 20 times as much.
_NUCLEUS = 1024


class Sampler:
    """Chooses tokens for one request, with OpenAI's parameters.

    The same seed and logits give the same tokens, on any device.

    Args:
        temperature: 0 takes the likeliest token; 1 samples what the model says.
        top_p: sample from the fewest tokens that hold this much probability.
        top_k: sample from this many tokens; 0 from all.
        seed: any integer; None draws a fresh one.

    Raises:
        EngineError: a parameter is out of range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
    ) -> None:
        if not 0 <= temperature < math.inf:
            raise EngineError(f"temperature must be 0 or more and finite, not {temperature}")
        if not 0 < top_p <= 1:
            raise EngineError(f"top_p must be above 0 and at most 1, not {top_p}")
        if top_k < 0:
            raise EngineError(f"top_k must be 0 (all tokens) or more, not {top_k}")
        self.temperature = temperature
        self.top_p = top_p
        self.top_k = top_k
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed % (1 << 64))

    def sample(self, logits: Tensor) -> int:
        """The next token, from logits of shape [vocab].

        Raises:
            EngineError: the logits are not numbers.
        """
        if self.temperature == 0:
            token = int(logits.argmax())
            _check_finite(logits[token])
            return token
        scaled = (logits - logits.max()).double() / self.temperature
        probs, ids = self._candidates(scaled.softmax(0))
        cumulative = probs.cumsum(0)
        _check_finite(cumulative[-1])
        # Drawn on the CPU, so that every device draws the same number.
        draw = torch.rand((), dtype=torch.float64, generator=self._generator)
        place = torch.searchsorted(cumulative, draw.to(logits.device) * cumulative[-1], right=True)
        index = min(int(place), len(cumulative) - 1)
        return index if ids is None else int(ids[index])

    def log_probs(self, logits: Tensor, token: int, k: int) -> LogProbs:
        """`log_probs`."""
        return log_probs(logits, token, k)

    def _candidates(self, probs: Tensor) -> tuple[Tensor, Tensor | None]:
        """The probabilities to sample from and their tokens (None: every token, in order)."""
        ids = None
        if self.top_k:
            probs, ids = probs.topk(min(self.top_k, len(probs)))
            probs = probs / probs.sum()
        if self.top_p < 1:
            probs, order = _nucleus(probs, self.top_p)
            ids = order if ids is None else ids[order]
        return probs, ids


def _nucleus(probs: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest likeliest entries that hold `top_p`, at least one, and their places."""
    top, order = probs.topk(min(_NUCLEUS, len(probs)))
    if top.sum() < top_p:
        top, order = probs.sort(descending=True, stable=True)
    before = top.cumsum(0) - top
    size = max(1, int((before < top_p).sum()))
    return top[:size], order[:size]


def _check_finite(value: Tensor) -> None:
    if not math.isfinite(float(value)):
        raise EngineError(
            "the model's logits are not finite; its weights or its dtype are broken, try float32"
        )


class LogProbs(NamedTuple):
    """Log-probabilities at one position: the chosen token's, and the likeliest (token, logprob)."""

    chosen: float
    top: tuple[tuple[int, float], ...]


def log_probs(logits: Tensor, token: int, k: int = 0) -> LogProbs:
    """What the model gave `token` and its `k` likeliest tokens, before any sampling parameter."""
    all_tokens = logits.float().log_softmax(0)
    top = all_tokens.topk(min(k, len(all_tokens)))
    pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return LogProbs(float(all_tokens[token]), tuple(pairs))
