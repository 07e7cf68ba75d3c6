"""One request, from its admission to its receipt: what it asked, what it got, what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leyline_adapters.vllm.blocks import Held
from leyline_adapters.vllm.claims import Located, Verified
from leyline_adapters.vllm.lineage import Mark
from leyline_adapters.vllm.sources import Home, Moved, Owner, Piece, Source
from leyline_adapters.vllm.transfer import Copy
from leyline_adapters.vllm.wire import Ask, Told
from leyline_agent.receipt import Reason

__all__ = ["Turn", "joined", "planned"]


@dataclass
class Turn:
    """A request that asked something.

    Attributes:
        owner: tenant and session.
        ask: what was asked.
        verified: what of it holds.
        marks: where its lineage forks off.
        refused: nothing of it is carried out, and its KV is not kept.
        local: tokens that vLLM's own cache had at the last look.
        pieces: what is to be copied, found at the last look.
        pinned: the blocks they are in.
        reused: tokens not computed, once admitted; None before.
        failed: a worker could not copy; the request is prefilled.
        splice_us: host time of the copies, of the slowest worker.
        reason, detail: why not everything was done; ASKED when it was.
    """

    owner: Owner
    ask: Ask
    verified: Verified[Source]
    marks: tuple[Mark, ...] = ()
    refused: bool = False
    local: int = 0
    pieces: tuple[Piece, ...] = ()
    pinned: list[Held] = field(default_factory=list)
    reused: int | None = None
    failed: bool = False
    splice_us: float = 0.0
    reason: Reason = Reason.ASKED
    detail: str = ""

    def blame(self, reason: Reason, detail: str) -> None:
        """Say why; the first reason stays."""
        if self.reason is Reason.ASKED:
            self.reason, self.detail = reason, detail

    @property
    def spliced_from(self) -> int | None:
        """The first token of the prompt whose KV is spliced; None when none is."""
        reused, verified = self.reused or 0, self.verified
        parent = verified.parent.spliced_from if verified.parent is not None else None
        if parent is not None and parent < min(verified.shared, reused):
            return parent
        return verified.fork if verified.fork is not None and verified.fork < reused else None

    def moved(self) -> tuple[Moved, ...]:
        """Its reused tokens that were written elsewhere, at another position than they have now."""
        reused = self.reused or 0
        runs: list[Moved] = []
        for claim in self.verified.claims:
            end = min(claim.end, claim.start + reused - claim.at)
            runs += _moved(claim.source, claim.start, end, claim.at)
        return tuple(run for run in runs if any(map(run.home.alive, range(len(run.home.blocks)))))

    def told(self, prompt: int, handle: str) -> Told:
        """The receipt."""
        reused = min(self.reused or 0, prompt)
        spliced_from = self.spliced_from
        exact = reused if spliced_from is None else min(reused, spliced_from)
        return Told(
            handle=handle,
            prompt=prompt,
            reused_exact=exact,
            reused_spliced=reused - exact,
            prefilled=prompt - reused,
            splice_us=self.splice_us,
            reason=self.reason.value,
            detail=self.detail,
            spliced_from=spliced_from,
        )


def _moved(source: Source, start: int, end: int, at: int) -> list[Moved]:
    """Tokens [start, end) of a source, standing at `at` now, that were not written there."""
    by = at - start
    return [
        Moved(low + by, high + by, home, shift - by)
        for low, high, home, shift in source.written(start, end)
        if shift != by
    ]


def planned(
    claims: Sequence[Located[Source]], start: int, limit: int, block_size: int
) -> tuple[list[Piece], bool]:
    """What to copy so that the prompt's tokens from `start` on are there, up to `limit`.

    Returns:
        Contiguous pieces, and whether the claims ended early because KV is gone.
    """
    pieces: list[Piece] = []
    at = start
    for claim in claims:
        stop = min(claim.stop, limit)
        if claim.at > at or stop <= at:
            continue
        first = claim.start + at - claim.at
        pieces += claim.source.pieces(first, first + stop - at, at, block_size)
        at = pieces[-1].at + pieces[-1].length if pieces else at
        if at < stop:
            return pieces, True
    return pieces, False


def joined(pieces: Sequence[Piece], block_size: int) -> tuple[Copy, ...]:
    """Pieces as copies: neighbours of one home that move alike become one."""
    copies: list[Copy] = []
    previous: tuple[Home, int] | None = None
    for piece in pieces:
        index, offset = divmod(piece.position, block_size)
        held = piece.home.blocks[index]
        if held is None:
            raise ValueError(f"block {index} of a source was given up while it was being planned")
        if (
            previous == (piece.home, piece.position)
            and copies[-1].shift == piece.at - piece.position
        ):
            last = copies[-1]
            blocks = last.blocks if offset else (*last.blocks, held.block_id)
            copies[-1] = Copy(blocks, last.offset, last.at, last.length + piece.length, last.shift)
        else:
            shift = piece.at - piece.position
            copies.append(Copy((held.block_id,), offset, piece.at, piece.length, shift))
        previous = piece.home, piece.position + piece.length
    return tuple(copies)
