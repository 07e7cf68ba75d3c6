"""Blocks of vLLM's pool that sources hold: pinned, or readable until somebody needs the memory.

A *pinned* block has a reference of ours: it is not given to anybody. A *soft* one has none; it
stands at the end of the pool's queue of free blocks, counts as free there, and the pool says when
it gives it away. So sources never keep a request from being scheduled, and pins are for those
that must survive other sessions' traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

__all__ = ["BlockKeeper", "Held", "Pool"]


class Pool(Protocol):
    """What is used of vLLM's `BlockPool`."""

    blocks: list[Any]

    def touch(self, blocks: Sequence[Any], /) -> None:
        """Take a reference on each."""
        ...

    def free_blocks(self, ordered_blocks: Iterable[Any], /) -> None:
        """Give references back; the first is evicted first."""
        ...

    def unpin_blocks(self, blocks: Iterable[Any], on_reuse: Callable[[Any], None], /) -> None:
        """Give references back, and be told when a block is given away."""
        ...

    def get_num_free_blocks(self) -> int:
        """Blocks without a reference."""
        ...


class Held:
    """One block with KV that some source has; `gone` once the pool gave it away."""

    __slots__ = ("block", "gone", "holders", "pins")

    def __init__(self, block: Any) -> None:
        self.block = block
        self.holders = 0
        self.pins = 0
        self.gone = False

    @property
    def block_id(self) -> int:
        """Its number in the pool."""
        return int(self.block.block_id)

    @property
    def is_free(self) -> bool:
        """Whether pinning it takes a block from those that are free."""
        return not self.gone and int(self.block.ref_cnt) == 0


class BlockKeeper:
    """Counts who holds which block. A block is held once in the pool, however many hold it here."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.num_pinned = 0
        self._held: dict[int, Held] = {}

    @property
    def num_held(self) -> int:
        """Blocks that are held, pinned or soft."""
        return len(self._held)

    def hold(self, block_ids: Sequence[int]) -> list[Held]:
        """Hold and pin blocks of a request that is about to free them."""
        found = []
        for block_id in block_ids:
            held = self._held.get(block_id)
            if held is None:
                held = self._held[block_id] = Held(self.pool.blocks[block_id])
            held.holders += 1
            found.append(held)
        self.pin(found)
        return found

    def pin(self, blocks: Iterable[Held]) -> None:
        """Pin blocks that are held and not gone; pins are counted."""
        for held in blocks:
            if held.pins == 0 and not held.gone:
                self.pool.touch([held.block])
                self.num_pinned += 1
            held.pins += 1

    def unpin(self, blocks: Sequence[Held]) -> None:
        """Take pins back; a block that nobody pins any more is soft. The last is given up first."""
        for held in reversed(blocks):
            held.pins -= 1
            if held.pins == 0 and not held.gone:
                self.num_pinned -= 1
                if held.holders:
                    self.pool.unpin_blocks([held.block], self._reused)
                else:
                    self.pool.free_blocks([held.block])

    def drop(self, blocks: Sequence[Held], *, pinned: bool) -> None:
        """Hold blocks no longer, and take the holder's pin back if it had one."""
        for held in blocks:
            held.holders -= 1
            if held.holders == 0 and self._held.get(held.block_id) is held:
                del self._held[held.block_id]
        if pinned:
            self.unpin(blocks)

    def _reused(self, block: Any) -> None:
        held = self._held.pop(int(block.block_id), None)
        if held is not None:
            held.gone = True
