"""What the connector's scheduler side and its workers send each other; plain data, pickled."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Copy", "Load"]


@dataclass(frozen=True)
class Copy:
    """`length` tokens from slot `offset` of source blocks to position `at` of the request.

    Attributes:
        blocks: source blocks, the first holds the first token.
        offset: of the first token in the first block.
        at: the first token's position in the request.
        length: number of tokens.
        shift: how far every key is rotated on, in positions; negative towards the front.
    """

    blocks: tuple[int, ...]
    offset: int
    at: int
    length: int
    shift: int


@dataclass(frozen=True)
class Load:
    """One request's copies, to be carried out in one step.

    Attributes:
        request: vLLM's id of the request.
        blocks: the request's block table, as far as it is written.
        copies: in the order of `at`, contiguous.
    """

    request: str
    blocks: tuple[int, ...]
    copies: tuple[Copy, ...]
