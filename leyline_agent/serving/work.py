"""Work: what one forward pass computes of a sequence, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from leyline_agent.serving.kernels.backend import Positions

__all__ = ["Cached", "Computed", "Logits", "Work"]

Logits = Any
"""Float32, on the engine's own kind of array: a torch tensor, or numpy's where llama.cpp runs."""


class Cached(Protocol):
    """Tokens and the KV an engine holds of them."""

    tokens: list[int]

    def __len__(self) -> int: ...

    @property
    def canonical_len(self) -> int:
        """How many leading tokens hold canonical KV (what a plain prefill would give)."""
        ...

    def first_that_saw(self, edit_id: str) -> int | None:
        """The position of the first token that absorbed the span edit `edit_id` removed."""
        ...

    def extend(self, tokens: Sequence[int]) -> object:
        """Append tokens, to be computed."""
        ...

    def truncate(self, length: int) -> None:
        """Drop everything behind the first `length` tokens."""
        ...

    def release(self) -> None:
        """Give the KV up; the sequence is empty afterwards. Safe to call twice."""
        ...


class Work(NamedTuple):
    """One sequence's part of a forward pass.

    Attributes:
        sequence: whose KV is computed.
        positions: the tokens to compute, ascending, at least one.
        every: logits of every one of them, not of the last alone.
    """

    sequence: Any
    positions: Positions
    every: bool = False


class Computed(NamedTuple):
    """What became of it.

    Attributes:
        logits: float32 [vocab] of the last position, or [positions, vocab]; None where no model
            runs.
        copy_us: host microseconds spent on a working copy.
    """

    logits: Logits | None = None
    copy_us: float = 0.0
