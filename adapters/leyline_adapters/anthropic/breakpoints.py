"""Cache breakpoints (`cache_control`) of blocks that an edit changed or removed.

A breakpoint says that the prompt up to its block is to be cached. Where its block is gone it goes
to the nearest block before that is left: there are never more of them, and their order stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline_adapters.anthropic.blocks import Placed, is_thinking
from leyline_agent.response import as_dict

__all__ = ["Part", "carry"]

logger = logging.getLogger("leyline.anthropic")


@dataclass(eq=False)
class Part:
    """What one chat message, or several of one message, came to.

    Attributes:
        role: the message's.
        place: the caller's message it is a part of; None for a new one.
        blocks: its blocks.
        whole: nothing in it is changed.
    """

    role: str
    place: int | None
    blocks: list[Placed]
    whole: bool = False


def carry(given: Sequence[Sequence[Any]], parts: Sequence[Part]) -> None:
    """Give each breakpoint in `given`, the caller's blocks by message, a block among `parts`."""
    if all(_mark(block) is None for blocks in given for block in blocks):
        return
    spots = {
        (part.place, index): (part, at)
        for part in parts
        for at, (index, _) in enumerate(part.blocks)
        if index is not None
    }
    last: tuple[Part, int] | None = None
    for place, blocks in enumerate(given):
        for index, block in enumerate(blocks):
            spot = spots.get((place, index))
            if spot is not None and _can_be_marked(_at(spot)):
                last = spot
            mark = _mark(block)
            if mark is None or (spot is not None and _mark(_at(spot)) is not None):
                continue
            if last is None:
                logger.warning("no block is left in front of a cache breakpoint: it is dropped")
            elif _mark(_at(last)) is None:
                part, at = last
                plain = as_dict(_at(last)) or {}
                part.blocks[at] = (part.blocks[at][0], {**plain, "cache_control": mark})
                part.whole = False


def _at(spot: tuple[Part, int]) -> Any:
    part, at = spot
    return part.blocks[at][1]


def _mark(block: Any) -> Any:
    """A block's breakpoint, or that of a block inside it."""
    own = _field(block, "cache_control")
    if own is not None:
        return own
    inner = _field(block, "content")
    if not isinstance(inner, list | tuple):
        return None
    marks = (_field(each, "cache_control") for each in inner)
    return next((mark for mark in marks if mark is not None), None)


def _field(block: Any, name: str) -> Any:
    return block.get(name) if isinstance(block, Mapping) else getattr(block, name, None)


def _can_be_marked(block: Any) -> bool:
    empty = _field(block, "type") == "text" and not str(_field(block, "text") or "").strip()
    return not is_thinking(block) and not empty
