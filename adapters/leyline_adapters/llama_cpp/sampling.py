"""Sampling from logits on the CPU, with OpenAI's parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from leyline_agent.errors import EngineError

__all__ = ["LogProbs", "Sampler", "log_softmax"]

Array = np.ndarray[Any, np.dtype[Any]]


class LogProbs(NamedTuple):
    """Log-probabilities at one position: the chosen token's, and the likeliest (token, logprob)."""

    chosen: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses tokens for one request. The same seed and logits give the same tokens.

    Args:
        temperature: 0 takes the likeliest token; 1 samples what the model says.
        top_p: sample from the fewest tokens that hold this much probability.
        top_k: sample from this many tokens; 0 from all.
        seed: any integer; None draws a fresh one.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
    ) -> None:
        self.temperature = temperature
        self.top_p = top_p
        self.top_k = top_k
        self._random = np.random.default_rng(None if seed is None else seed % (1 << 64))

    def sample(self, logits: Array) -> int:
        """The next token, from logits of shape [vocab].

        Raises:
            EngineError: the logits are not numbers.
        """
        if not np.isfinite(logits.max()):
            raise EngineError("the model's logits are not finite; its weights are broken")
        if self.temperature == 0:
            return int(logits.argmax())
        # The likeliest first; of equals the one with the lower id, so that a seed means one thing.
        order = np.argsort(-logits, kind="stable")
        if self.top_k:
            order = order[: self.top_k]
        scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / self.temperature
        probs = np.exp(scaled)
        probs /= probs.sum()
        cumulative = probs.cumsum()
        size = max(1, int(((cumulative - probs) < self.top_p).sum()))
        draw = self._random.random() * cumulative[size - 1]
        index = min(int(np.searchsorted(cumulative[:size], draw, side="right")), size - 1)
        return int(order[index])

    def log_probs(self, logits: Array, token: int, k: int) -> LogProbs:
        """What the model gave `token` and its `k` likeliest, before any sampling parameter."""
        every = log_softmax(logits)
        k = min(k, len(every))
        top = np.argpartition(-every, k - 1)[:k] if k else np.empty(0, np.int64)
        top = top[np.argsort(-every[top], kind="stable")]
        pairs = tuple((int(i), float(every[i])) for i in top)
        return LogProbs(float(every[token]), pairs)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities, float64 [..., vocab]."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
