"""llama.cpp's table of cells, simulated: what it refuses is refused, what it computes is a digest.

A token's digest is made of the token and of the digests it sees, so that two sequences agree where,
and only where, the same tokens were computed behind the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from leyline_adapters.llama_cpp.model import Array, ModelFacts, Part
from leyline_agent.errors import EngineError

VOCAB = 50


@dataclass(eq=False)
class Cell:
    """One cell: its token, what was computed, where it stands and to whom it belongs."""

    token: int
    digest: int
    position: int
    seqs: set[int] = field(default_factory=set)


class SimulatedModel:
    """A `host.Model` that computes digests."""

    def __init__(self, num_cells: int = 400, facts: ModelFacts | None = None) -> None:
        self.num_cells = self.max_len = num_cells
        self.facts = facts or ModelFacts()
        self.vocab_size = VOCAB
        self.table: list[Cell] = []
        self.decodes: list[list[Part]] = []
        self.can_own = True
        self.fail = False

    @property
    def cells(self) -> SimulatedModel:
        """Its own."""
        return self

    def of(self, seq: int) -> list[Cell]:
        """A sequence's cells by position."""
        found = [cell for cell in self.table if seq in cell.seqs]
        return sorted(found, key=lambda cell: cell.position)

    def decode(self, parts: Sequence[Part]) -> list[Array]:
        """Compute digests behind each sequence's last cell; logits that depend on the last one."""
        self.decodes.append(list(parts))
        if self.fail:
            raise EngineError("it failed")
        return [self._decoded(part) for part in parts]

    def _decoded(self, part: Part) -> Array:
        seen = self.of(part.seq)
        positions = [cell.position for cell in seen]
        assert positions == list(range(part.position)), "positions must be consecutive"
        digests = [cell.digest for cell in seen]
        rows = []
        for offset, token in enumerate(part.tokens):
            digest = hash((token, tuple(digests)))
            digests.append(digest)
            self.table.append(Cell(token, digest, part.position + offset, {part.seq}))
            assert len(self.table) <= self.num_cells, "no cell is free"
            rows.append(np.random.default_rng(digest % (1 << 32)).random(VOCAB, np.float32))
        wanted = rows[len(rows) - part.rows :]
        return np.array(wanted, np.float32).reshape(len(wanted), VOCAB)

    def remove(self, seq: int, start: int, end: int) -> None:
        """Out of the sequence; free where it was the last."""
        if self.facts.whole and start > 0 and any(c.position >= start for c in self.of(seq)):
            raise EngineError("a recurrent state cannot be cut")
        for cell in self.of(seq):
            if start <= cell.position < end:
                cell.seqs.remove(seq)
        self.table = [cell for cell in self.table if cell.seqs]

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """Into both sequences."""
        for cell in self.of(source):
            if start <= cell.position < end:
                cell.seqs.add(target)

    def move(self, seq: int, start: int, end: int, delta: int) -> None:
        """All of them, whoever else they belong to: that is for the caller to see to."""
        for cell in self.of(seq):
            if start <= cell.position < end:
                assert cell.seqs == {seq}, "a shared cell was moved"
                cell.position += delta
        positions = [cell.position for cell in self.of(seq)]
        assert len(set(positions)) == len(positions), "two cells at one position"

    def own(self, seq: int, scratch: int, start: int, end: int) -> None:
        """Copies instead."""
        assert not self.of(scratch)
        for cell in self.of(seq):
            if start <= cell.position < end:
                cell.seqs.remove(seq)
                self.table.append(Cell(cell.token, cell.digest, cell.position, {seq}))
        self.table = [cell for cell in self.table if cell.seqs]
        assert len(self.table) <= self.num_cells, "no cell is free"
