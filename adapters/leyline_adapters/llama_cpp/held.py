"""What a version or a run holds of a tape: a `serving.work.Cached` over llama.cpp's cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leyline_adapters.llama_cpp.tape import HOLE, Tape
from leyline_agent.lowering import common_prefix

if TYPE_CHECKING:
    from leyline_adapters.llama_cpp.host import LlamaHost

__all__ = ["CLEAN", "Held"]

CLEAN: frozenset[str] = frozenset()


@dataclass(eq=False)
class Held:
    """Tokens, the cells they were computed into, and which removed spans they absorbed.

    A tape is edited in place, so what is held may be gone: then the births on the tape differ, and
    whoever builds on it has the rest computed again.

    Attributes:
        tokens, births, saw: one entry a token; `saw` has ids of edits.
    """

    host: LlamaHost
    tape: Tape
    tokens: list[int] = field(default_factory=list)
    births: list[int] = field(default_factory=list)
    saw: list[frozenset[str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def canonical_len(self) -> int:
        """How many leading tokens hold canonical KV (what a plain prefill would give)."""
        return next((i for i, saw in enumerate(self.saw) if saw), len(self.saw))

    @property
    def intact(self) -> bool:
        """Whether the tape still has all of it."""
        size = len(self.births)
        return common_prefix(self.births, self.tape.births) == size

    def first_that_saw(self, edit_id: str) -> int | None:
        """The position of the first token that absorbed the span edit `edit_id` removed."""
        return next((i for i, saw in enumerate(self.saw) if edit_id in saw), None)

    def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens, to be computed.

        Raises:
            OutOfSlots: the cells are used up; nothing has changed.
        """
        self.host.check_room(len(tokens))
        self.saw.extend([self.saw[-1] if self.saw else CLEAN] * len(tokens))
        self.births.extend([HOLE] * len(tokens))
        self.tokens.extend(tokens)

    def truncate(self, length: int) -> None:
        """Drop everything behind the first `length` tokens."""
        self.host.cells.remove(self.tape.seq, length, len(self.births))
        del self.tokens[length:], self.births[length:], self.saw[length:]

    def release(self) -> None:
        """Give the KV up; the sequence is empty afterwards. Safe to call twice."""
        self.host.let_go(self)
        self.tokens, self.births, self.saw = [], [], []
