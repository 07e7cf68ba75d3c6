"""Spaces: namespaces of the radix tree, so that spliced KV serves its own lineage and nobody else.

    T        the tenant's own space: canonical KV, what plain prefills leave
    T|x      one splice's: the prefix as it was, tokens moved, and all that is computed behind them

What claims hold is verified as for vLLM (`leyline_adapters.vllm.claims`): token by token.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from leyline_adapters.vllm.claims import Located, common_prefix

__all__ = ["SHARED", "Piece", "Source", "Space", "as_tokens", "spliced_from"]


def as_tokens(tokens: Sequence[int]) -> array[int]:
    """Token ids as SGLang's keys hold them; compared in C."""
    return array("q", tokens)


@dataclass(frozen=True)
class Space:
    """A namespace of the tree.

    Attributes:
        name: part of the tree's key; "" for the tenant's own.
        tokens: the prompt it was made for, as far as KV was to be brought there.
        spliced_from: the first of them whose KV is spliced; None where all is canonical.
    """

    name: str = ""
    tokens: array[int] = field(default_factory=lambda: as_tokens(()), repr=False, compare=False)
    spliced_from: int | None = field(default=None, compare=False)

    def spliced_in(self, prompt: Sequence[int]) -> int | None:
        """From which token on KV found here for `prompt` is spliced; None if it cannot be.

        A sequence that leaves the space's own before the splice was computed, not brought.
        """
        first = self.spliced_from
        if first is None or common_prefix(prompt, self.tokens) <= first:
            return None
        return first


SHARED = Space()


@dataclass(frozen=True)
class Source:
    """The tokens of a finished request that have KV, and the space it is in."""

    tokens: array[int] = field(repr=False)
    space: Space = SHARED

    @property
    def held(self) -> int:
        """All of them."""
        return len(self.tokens)


Piece = Located[Source]


def spliced_from(pieces: Sequence[Piece]) -> int | None:
    """The first token of what `pieces` bring that is moved, or of an older splice; None if none."""
    firsts = [piece.at for piece in pieces if not piece.in_place]
    for piece in pieces:
        older = piece.source.space.spliced_in(piece.source.tokens) if piece.in_place else None
        if older is not None and older < piece.stop:
            firsts.append(older)
    return min(firsts, default=None)
