"""The bench: sequences of one engine that share what they can, computed and scored together.

    base = bench.prefill(unedited)           once a context
    line = bench.splice(base, case, order, positions)
    bench.compute([line, ...])               the fresh tokens of all, in as few passes as they take
    bench.score([line, ...], tokens)         what each predicted, token by token

Splices are the engine's own (`serving.kv.splice`): what is measured is what is served.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.lowering import common_prefix
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.executor import TorchExecutor, Work
from leyline_agent.serving.kernels.backend import Positions
from leyline_agent.serving.kv.sequence import CachedSequence, slice_segments
from leyline_agent.serving.kv.splice import Kept, kept_pieces, splice
from leyline_evals.fidelity.cases import Case, Order

__all__ = ["Bench", "Line"]

# Lines scored at a time, and rows of logits in a pass: a vocabulary of 150,000 is 0.6 MB a row.
_TOGETHER = 4
_SCORED_ROWS = 256
NOTHING = np.empty(0, np.int64)


@dataclass
class Line:
    """A sequence on its way.

    Attributes:
        sequence: tokens and KV.
        pending: positions still to be computed, ascending.
        recomputed: how many of them were kept, and are computed again.
        logits: float32 [vocab] behind the last token, once nothing pends.
    """

    sequence: CachedSequence
    pending: Positions = field(default_factory=lambda: NOTHING)
    recomputed: int = 0
    logits: Tensor | None = None


class Bench:
    """Sequences of one engine, which nobody else uses meanwhile.

    Args:
        engine: one that runs a model.

    Raises:
        EngineError: no model runs in it.
    """

    def __init__(self, engine: Engine) -> None:
        if not isinstance(engine.executor, TorchExecutor):
            raise EngineError("no model runs in this engine; fidelity needs its predictions")
        self.engine = engine
        self._executor = engine.executor
        self._base: CachedSequence | None = None

    def prefill(self, tokens: Sequence[int]) -> CachedSequence:
        """A plain prefill; reuses what the one before it begins with. Valid until the next one."""
        base = self._base
        if base is None:
            base = CachedSequence(self.engine.pool)
        self._base = base
        base.truncate(min(common_prefix(base.tokens, tokens), len(tokens) - 1))
        self.compute([self.extend(base, tokens[len(base) :])])
        return base

    def extend(self, sequence: CachedSequence, tokens: Sequence[int]) -> Line:
        """A line that appends tokens to a sequence; takes it over."""
        start = len(sequence)
        sequence.extend(tokens)
        return Line(sequence, np.arange(start, len(sequence), dtype=np.int64))

    def splice(
        self,
        base: CachedSequence,
        case: Case,
        order: Order,
        positions: frozenset[int] = frozenset(),
        *,
        rotate: bool = True,
    ) -> Line:
        """The edit carried out on what the engine holds of the unedited prompt.

        Args:
            base: a plain prefill of the unedited prompt.
            case: the edit.
            order: says how much of `base` is held when it comes.
            positions: kept tokens to compute again.
            rotate: leave keys where they were rotated when False; only to see what that does.
        """
        held = base.fork(case.held[order])
        try:
            ids = [str(number) for number in range(len(case.directives))]
            pieces = kept_pieces(held, case.directives, ids)
            if not rotate:
                pieces = [_unmoved(piece) for piece in pieces]
            done = splice(self.engine.pool, case.edited, pieces, (), positions)
        finally:
            held.release()
        new = len(case.edited) - sum(piece.end - piece.start for piece in pieces)
        return Line(done.sequence, done.fresh, recomputed=len(done.fresh) - new)

    def compute(self, lines: Sequence[Line], chunk: int | None = None) -> None:
        """Compute what is pending of every line, at most `chunk` tokens a pass."""
        limit = chunk or self.engine.config.chunk
        for parts in _passes(lines, limit):
            works = [Work(line.sequence, part) for line, part in parts]
            results = self._executor.forward(works)
            for (line, part), result in zip(parts, results, strict=True):
                line.pending = line.pending[len(part) :]
                line.logits = result.logits

    def score(self, lines: Sequence[Line], tokens: Sequence[int]) -> Iterator[Tensor]:
        """Float32 logits [tokens, vocab] that predicted each token, line by line.

        The lines end up as they were.
        """
        for start in range(0, len(lines), _TOGETHER):
            yield from self._score(lines[start : start + _TOGETHER], tokens)

    def _score(self, lines: Sequence[Line], tokens: Sequence[int]) -> list[Tensor]:
        found = [[_known(line)[None]] for line in lines]
        ends = [len(line.sequence) for line in lines]
        forced = [self.extend(line.sequence, tokens[:-1]) for line in lines] if tokens[1:] else []
        rows = {id(line): own for line, own in zip(forced, found, strict=False)}
        for parts in _passes(forced, _SCORED_ROWS):
            works = [Work(line.sequence, part, every=True) for line, part in parts]
            results = self._executor.forward(works)
            for (line, part), result in zip(parts, results, strict=True):
                line.pending = line.pending[len(part) :]
                rows[id(line)].append(_known(result))
        for line, end in zip(lines, ends, strict=True):
            line.sequence.truncate(end)
        return [torch.cat(own) for own in found]

    def greedy(
        self, lines: Sequence[Line], at_most: Sequence[int], stops: frozenset[int]
    ) -> list[list[int]]:
        """Each line's likeliest continuation, up to and with a token that stops it.

        All take a step together; the lines end up as they were.
        """
        ends = [len(line.sequence) for line in lines]
        found: list[list[int]] = [[] for _ in lines]
        going = {number: line for number, line in enumerate(lines) if at_most[number] > 0}
        while going:
            steps: dict[int, Line] = {}
            for number, line in going.items():
                token = int(_known(line).argmax())
                found[number].append(token)
                if token not in stops and len(found[number]) < at_most[number]:
                    steps[number] = self.extend(line.sequence, [token])
            self.compute(list(steps.values()))
            going = steps
        for line, end in zip(lines, ends, strict=True):
            line.sequence.truncate(end)
        return found

    def follow(
        self, lines: Sequence[Line], tokens: Sequence[int], at_most: int, stops: frozenset[int]
    ) -> list[list[int]]:
        """`greedy`, for lines likely to say `tokens`: computed again only where they differ."""
        ends = [len(line.sequence) for line in lines]
        found: list[list[int]] = []
        apart: dict[int, Line] = {}
        for number, logits in enumerate(self.score(lines, tokens)):
            said = logits.argmax(-1).tolist()
            same = common_prefix(said, tokens)
            found.append([*tokens[:same], *said[same : same + 1]])
            if same < len(tokens) and said[same] not in stops and same + 1 < at_most:
                apart[number] = lines[number]
        further = [self.extend(line.sequence, found[number]) for number, line in apart.items()]
        self.compute(further)
        left = [at_most - len(found[number]) for number in apart]
        for number, rest in zip(apart, self.greedy(further, left, stops), strict=True):
            found[number] += rest
        for line, end in zip(lines, ends, strict=True):
            line.sequence.truncate(end)
        return found

    def deviations(self, line: Line, honest: CachedSequence) -> list[int]:
        """Kept positions that absorbed an edit, by how much their values deviate, most first.

        Values of the second layer, which layer 0 over the whole suffix would show an engine that
        has no honest KV to compare with (CacheBlend, arXiv 2405.16444).
        """
        values = self._executor.store.values
        layer = values[min(1, len(values) - 1)]
        fresh = set(line.pending.tolist())
        where = [
            position
            for start, end, saw in _absorbed(line.sequence)
            if saw
            for position in range(start, end)
            if position not in fresh
        ]
        if not where:
            return []
        here, there = (layer[_slots(s)[where]].float() for s in (line.sequence, honest))
        by = (here - there).square().sum((1, 2))
        return [where[index] for index in by.argsort(descending=True).tolist()]

    def release(self, lines: Sequence[Line]) -> None:
        """Give the lines' slots back."""
        for line in lines:
            line.sequence.release()


def _known(of: object) -> Tensor:
    logits = getattr(of, "logits", None)
    assert isinstance(logits, Tensor), "the line is not computed yet"
    return logits


def _unmoved(piece: Kept) -> Kept:
    return piece._replace(segments=tuple(s._replace(offset=0) for s in piece.segments))


def _passes(lines: Sequence[Line], limit: int) -> Iterator[list[tuple[Line, Positions]]]:
    """What of each line a pass computes; whoever computes takes it off `pending`."""
    while True:
        parts: list[tuple[Line, Positions]] = []
        room = limit
        for line in lines:
            part = line.pending[:room]
            if len(part):
                parts.append((line, part))
                room -= len(part)
        if not parts:
            return
        yield parts


def _absorbed(sequence: CachedSequence) -> Iterator[tuple[int, int, frozenset[str]]]:
    at = 0
    for segment in sequence.segments:
        yield at, at + segment.length, segment.saw
        at += segment.length


def _slots(sequence: CachedSequence) -> Tensor:
    parts = slice_segments(sequence.segments, 0, len(sequence))
    return torch.cat([torch.arange(s.slot, s.slot + s.length) for s in parts])
