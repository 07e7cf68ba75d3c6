"""What a vLLM server predicts, compared."""

from __future__ import annotations

from typing import Any

CLOSE = 0.25  # Largest difference of a log-probability that bfloat16 explains here.


def tops(answer: dict[str, Any]) -> dict[str, float]:
    """The log-probabilities of the likeliest next tokens."""
    found: dict[str, float] = answer["choices"][0]["logprobs"]["top_logprobs"][0]
    return found


def apart(left: dict[str, float], right: dict[str, float]) -> float:
    """The largest difference of tokens that both name; infinite when they share fewer than 3."""
    both = left.keys() & right.keys()
    if len(both) < 3:
        return float("inf")
    return max(abs(left[token] - right[token]) for token in both)
