"""What the host must know of a model, whoever loads it. Pure; knows no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from leyline_adapters.llama_cpp.tape import Cells
from leyline_agent.receipt import Reason

__all__ = ["Array", "Model", "ModelFacts", "Part"]

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class ModelFacts:
    """What decides whether llama.cpp may move this model's keys.

    Attributes:
        refusal: why not; None when it may.
        detail: the reason in words.
        whole: a recurrent state: a sequence can be continued, not cut.
    """

    refusal: Reason | None = None
    detail: str = ""
    whole: bool = False


class Model(Protocol):
    """A loaded model with its context."""

    facts: ModelFacts
    vocab_size: int
    max_len: int
    num_cells: int

    @property
    def cells(self) -> Cells:
        """The context's cells."""
        ...

    def decode(self, parts: Sequence[Part]) -> list[Array]:
        """Decode; of each part the logits wanted, float32 [rows, vocab], none where none are."""
        ...


@dataclass(frozen=True)
class Part:
    """One sequence's tokens of a decode, at neighbouring positions.

    Attributes:
        rows: logits of so many of the last tokens are wanted.
    """

    seq: int
    tokens: Sequence[int]
    position: int
    rows: int
