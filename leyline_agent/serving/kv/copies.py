"""Several working copies under one budget of memory: which sequence gets which.

A copy belongs to nobody: the sequence that shares the longest beginning with it takes it, so a
session finds its own again turn after turn, whatever became of the sequence it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence

from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.kv.working_copy import Described, WorkingCopy, describe
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["WorkingCopies"]

# A copy that holds less of a sequence than this is some other sequence's.
_OWN_SHARE = 0.25


class WorkingCopies:
    """Working copies of a store's sequences, least recently used first.

    Args:
        store, pool, rope: as for `WorkingCopy`.
        max_bytes: what they may take together.
    """

    def __init__(
        self, store: KVStore, pool: SlotPool, rope: RopeSpec | None, max_bytes: int
    ) -> None:
        self.store = store
        self.pool = pool
        self.rope = rope
        self.max_bytes = max_bytes
        self._copies: list[WorkingCopy] = []

    def __len__(self) -> int:
        return len(self._copies)

    @property
    def num_bytes(self) -> int:
        """Bytes the copies take."""
        return sum(copy.num_bytes for copy in self._copies)

    def take(self, segments: Sequence[Segment], taken: Sequence[WorkingCopy]) -> WorkingCopy | None:
        """A copy that holds `segments`; None where the budget, less those `taken`, has no room."""
        wanted = describe(segments, self.pool)
        copy = self._choose(wanted, [c for c in self._copies if c not in taken])
        length = wanted.shape[1]
        if not self._fits(copy, length, taken):
            return None
        if copy in self._copies:
            self._copies.remove(copy)
        self._copies.append(copy)
        copy.update(segments)
        return copy

    def drop(self) -> int:
        """Free all copies; returns the bytes freed."""
        freed = self.num_bytes
        self._copies.clear()
        return freed

    def _choose(self, wanted: Described, idle: Sequence[WorkingCopy]) -> WorkingCopy:
        """The idle copy that is this sequence's own, else a new one."""
        shared = [copy.shared_len(wanted) for copy in idle]
        if shared and max(shared) >= _OWN_SHARE * wanted.shape[1]:
            return idle[shared.index(max(shared))]
        return WorkingCopy(self.store, self.pool, self.rope)

    def _fits(self, copy: WorkingCopy, length: int, taken: Sequence[WorkingCopy]) -> bool:
        """Whether `copy` may hold `length` tokens; idle copies make room, oldest first."""
        grown = copy.bytes_for(length)
        others = [c for c in self._copies if c is not copy]
        room = self.max_bytes - grown - sum(c.num_bytes for c in others)
        for other in others:
            if room >= 0:
                break
            if other not in taken:
                self._copies.remove(other)
                room += other.num_bytes
        return room >= 0
