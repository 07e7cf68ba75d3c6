"""Sources: finished requests whose KV later requests of the same session may copy from.

Every token's key was written once, at one position, in one request's blocks: its *home*. A copy
that moved a key elsewhere was rounded once more, so later edits are read from the home again as
long as its block is there, and from the copy only when it is not: chains of edits do not drift.

    S1  [ a a a a | x x x | b b b b ]          b written at 7
    S2  [ a a a a | b b b b | n n ]            b moved: home S1, shift +3
    S3  [ a a | b b b b | n n | m ]            b read from S1 again, by -5 in one rotation
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from leyline_adapters.vllm.blocks import BlockKeeper, Held
from leyline_adapters.vllm.lineage import Mark
from leyline_agent.receipt import Reason

__all__ = ["Home", "Moved", "Owner", "Piece", "Source", "SourceTable"]

Owner = tuple[str, str]
"""Tenant (cache salt) and session: handles are valid for their owner alone."""

_TOMBSTONES = 4096


@dataclass(eq=False)
class Home:
    """The blocks of one request: token p stands in block p // block_size, None when given up."""

    blocks: list[Held | None]
    pinned: bool = True
    named: bool = True

    def alive(self, index: int) -> bool:
        """Whether a block's KV is still there."""
        held = self.blocks[index] if index < len(self.blocks) else None
        return held is not None and not held.gone


@dataclass(frozen=True)
class Moved:
    """Tokens [start, end) of a source were written in `home`, at their position + `shift`."""

    start: int
    end: int
    home: Home
    shift: int


@dataclass(frozen=True)
class Piece:
    """`length` tokens at `position` of a home, to stand at `at`."""

    home: Home
    position: int
    at: int
    length: int


@dataclass(eq=False)
class Source:
    """A finished request.

    Attributes:
        owner: whose it is.
        tokens: its prompt and what was sampled.
        held: tokens [0, held) have KV.
        marks: where its lineage forks off.
        spliced_from: the first token whose KV is spliced; None when none is.
        home: its blocks.
        moved: its tokens that were written elsewhere, in order.
        handle: its name, which nobody can guess.
    """

    owner: Owner
    tokens: list[int]
    held: int
    marks: tuple[Mark, ...]
    spliced_from: int | None
    home: Home
    moved: tuple[Moved, ...] = ()
    handle: str = field(default_factory=lambda: secrets.token_urlsafe(18))

    def written(self, start: int, end: int) -> Iterator[tuple[int, int, Home, int]]:
        """Runs (start, end, home, shift) of tokens [start, end): where each was written first."""
        at = start
        for one in self.moved:
            low, high = max(at, one.start), min(end, one.end)
            if low >= high:
                continue
            if at < low:
                yield at, low, self.home, 0
            yield low, high, one.home, one.shift
            at = high
        if at < end:
            yield at, end, self.home, 0

    def pieces(self, start: int, end: int, at: int, block_size: int) -> Iterator[Piece]:
        """Where to copy tokens [start, end) from, the first to stand at `at`.

        Stops in front of a token whose KV is gone.
        """
        for low, high, home, shift in self.written(start, end):
            token = low
            while token < high:
                position = token + shift
                size = min(high - token, block_size - position % block_size)
                place, where = home, position
                if not home.alive(position // block_size):
                    place, where = self.home, token
                    size = min(size, block_size - token % block_size)
                if not place.alive(where // block_size):
                    return
                yield Piece(place, where, at + token - start, size)
                token += size


@dataclass
class SourceTable:
    """Sources by handle, least recently used first.

    Attributes:
        keeper: holds their blocks.
        block_size: tokens a block.
        budget: blocks that may be pinned; sources beyond it are soft.
        limit: sources kept at most.
    """

    keeper: BlockKeeper
    block_size: int
    budget: int
    limit: int = 1024
    _sources: OrderedDict[str, Source] = field(default_factory=OrderedDict)
    _gone: OrderedDict[str, Owner] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._sources)

    def find(self, handle: str, owner: Owner) -> Source | Reason:
        """A handle's source; EVICTED if its owner gave it up or it made room, else UNKNOWN."""
        source = self._sources.get(handle)
        if source is not None and source.owner == owner:
            self._sources.move_to_end(handle)
            return source
        return Reason.EVICTED if self._gone.get(handle) == owner else Reason.UNKNOWN_SESSION

    def keep(self, source: Source) -> str:
        """Remember a source whose home is pinned; its handle."""
        self._sources[source.handle] = source
        while len(self._sources) > self.limit:
            self._forget(next(iter(self._sources)))
        self._within_budget()
        return source.handle

    def release(self, handles: Sequence[str], owner: Owner) -> None:
        """Give sources up; those of other owners and unknown ones are left alone."""
        for handle in handles:
            source = self._sources.get(handle)
            if source is not None and source.owner == owner:
                self._forget(handle)

    def clear(self) -> None:
        """Give everything up: the cache has been reset."""
        for handle in list(self._sources):
            self._forget(handle)

    def _forget(self, handle: str) -> None:
        source = self._sources.pop(handle)
        self._gone[handle] = source.owner
        if len(self._gone) > _TOMBSTONES:
            self._gone.popitem(last=False)
        source.home.named = False
        for home in {source.home, *(one.home for one in source.moved)}:
            if not home.named:
                self._trim(home)

    def _trim(self, home: Home) -> None:
        """Give up those blocks of a home that no source left was written in; soften the rest."""
        needed: set[int] = set()
        for source in self._sources.values():
            for one in source.moved:
                if one.home is home:
                    first, last = one.start + one.shift, one.end + one.shift - 1
                    needed.update(range(first // self.block_size, last // self.block_size + 1))
        given_up = [
            held for i, held in enumerate(home.blocks) if held is not None and i not in needed
        ]
        self.keeper.drop(given_up, pinned=home.pinned)
        home.blocks = [held if i in needed else None for i, held in enumerate(home.blocks)]
        self._soften(home)

    def _within_budget(self) -> None:
        for source in self._sources.values():
            if self.keeper.num_pinned <= self.budget:
                return
            self._soften(source.home)

    def _soften(self, home: Home) -> None:
        if home.pinned:
            self.keeper.unpin([held for held in home.blocks if held is not None])
            home.pinned = False
