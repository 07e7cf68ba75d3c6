"""llama.cpp as a host of the chat service: prompts with directives over its one table of cells."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from leyline_adapters.llama_cpp.held import Held
from leyline_adapters.llama_cpp.model import Array, Model, Part
from leyline_adapters.llama_cpp.plan import (
    Plan,
    births_of,
    kept,
    num_cells,
    only,
    running,
    shared_prefix,
)
from leyline_adapters.llama_cpp.sampling import Sampler
from leyline_adapters.llama_cpp.tape import HOLE, Move, Tape, arrange, found, shared_with
from leyline_agent.errors import EngineError, InvalidRequest, OutOfSlots
from leyline_agent.lowering import common_prefix
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.host import Host
from leyline_agent.serving.modes import ModeRules, Settled, settle
from leyline_agent.serving.prompt import Prompt, Spent, receipt_of
from leyline_agent.serving.repair import RepairConfig
from leyline_agent.serving.run import Run
from leyline_agent.serving.sessions import EngineSession
from leyline_agent.serving.wire import SamplingRequest
from leyline_agent.serving.work import Cached, Computed, Work

__all__ = ["HostConfig", "LlamaHost"]

T = TypeVar("T")
# The boundary alone: each run of tokens to repair is a decode of its own, whatever its length.
_BOUNDARY = RepairConfig(max_echo=0, tail=0)
_GONE = "llama.cpp edits in place: part of what this builds on went with another turn's edit"


@dataclass(frozen=True)
class HostConfig:
    """How much at once, and what may strengthen a mode.

    Attributes:
        chunk: decode at most this many tokens at once.
        max_batch: continue at most this many sequences at once.
        tapes: sequences held at once, idle sessions' included; the rest is evicted.
        rules: what may strengthen a mode.
        repair: how many tokens REPAIR computes again.
    """

    chunk: int = 512
    max_batch: int = 4
    tapes: int = 16
    rules: ModeRules = ModeRules()
    repair: RepairConfig = field(default_factory=lambda: _BOUNDARY)


class LlamaHost(Host):
    """Prompts over llama.cpp's cells. One thread at a time.

    Args:
        model: the model and its context.
        config: see `HostConfig`.
    """

    config: HostConfig

    def __init__(self, model: Model, config: HostConfig | None = None) -> None:
        super().__init__(config or HostConfig(), model.max_len)
        self.model = model
        self.cells = model.cells
        self.facts = model.facts
        self.tapes: list[Tape] = []
        self._free = [2 * number for number in reversed(range(self.config.tapes))]
        self._births = itertools.count(HOLE + 1)
        self._clock = itertools.count(1)

    @property
    def vocab_size(self) -> int:
        """How many tokens the model knows."""
        return int(self.model.vocab_size)

    @property
    def num_used(self) -> int:
        """Cells that are used, or promised to a run."""
        return num_cells([tape.births for tape in self.tapes])

    def sampler(self, request: SamplingRequest) -> Sampler:
        """A request's sampler; OpenAI's defaults where the request says nothing."""
        return Sampler(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=request.top_p or 1.0,
            top_k=request.top_k or 0,
            seed=request.seed,
        )

    def joined(self, rows: Sequence[Array]) -> Array:
        """Logits one behind the other."""
        return np.concatenate(list(rows))

    # --- a prompt ----------------------------------------------------------------------------

    def open(self, prompt: Prompt) -> Run:
        """Splice only: a run whose fresh tokens `Run.prefill` computes. Raises as `start`."""
        if not prompt.tokens:
            raise InvalidRequest("a prompt needs at least one token")
        self.check_length(len(prompt.tokens))
        started = time.perf_counter()
        base = prompt.previous
        assert base is None or isinstance(base, Held)
        previous_len = len(base) if base else 0
        settled = settle(
            base.tokens if base else [],
            prompt.items,
            prompt.appended,
            self.facts,
            self.config.rules,
            self.config.repair,
        )
        plan = kept(prompt, base, settled)
        donor, length = self._donor(prompt)
        if donor is not None and length > len(plan.births) - plan.births.count(HOLE):
            plan = shared_prefix(length, donor, len(prompt.tokens))
        splicing = time.perf_counter()
        held = self._on_tape(prompt, plan, base)
        spent = self._spent(held, (time.perf_counter() - splicing) * 1e6)
        receipt = receipt_of(prompt, previous_len, settled, spent, repair="boundary")
        receipt = self._told(receipt, plan, held, settled)
        fresh = np.asarray(spent.fresh, np.int64)
        run = Run(self, prompt.tenant, held, fresh, receipt, settled, owner=prompt.owner)
        run.seconds = time.perf_counter() - started
        return run

    def _donor(self, prompt: Prompt) -> tuple[Tape | None, int]:
        """The tenant's tape with the longest canonical prefix of the prompt, and its length."""
        best, longest = None, 0
        for tape in self.tapes:
            if tape.tenant == prompt.tenant and not self.facts.whole:
                limit = min(tape.canonical, tape.computed)
                length = common_prefix(tape.tokens[:limit], prompt.tokens)
                if length > longest:
                    best, longest = tape, length
        return best, longest

    def _on_tape(self, prompt: Prompt, plan: Plan, base: Held | None) -> Held:
        """Have the prompt on a tape of its own, with holes where it is to be computed."""
        tape = self._claimed(prompt.tenant, plan, base)
        holes = plan.births.count(HOLE)

        def splice() -> Held:
            return self._spliced(prompt, plan, tape)

        with self._guarded(tape):
            # Cells of others are copied before they move: room for all, but only if need be.
            return self.with_room(len(plan.births), lambda: self.with_room(holes, splice))

    def _claimed(self, tenant: str, plan: Plan, base: Held | None) -> Tape:
        """The plan's source, or where others rely on that a tape which shares its cells.

        Sharing takes no cells, so the source may be given up afterwards to make room.
        """
        source = plan.source
        if source is None:
            return self.with_room(0, lambda: self._new_tape(tenant))
        source.used = next(self._clock)
        if not self._must_fork(source, base):
            return source
        with self._guarded(source):
            return self.with_room(0, lambda: self._forked(tenant, source, plan.births))

    @contextmanager
    def _guarded(self, tape: Tape) -> Iterator[None]:
        """Have a tape not evicted for what is to be made of it."""
        guard = Held(self, tape)
        tape.holders.append(guard)
        try:
            yield
        finally:
            self.let_go(guard)

    def _spliced(self, prompt: Prompt, plan: Plan, tape: Tape) -> Held:
        """Arrange a tape's cells. Raises OutOfSlots before anything has changed."""
        clean = next((i for i, saw in enumerate(plan.saw) if saw), len(plan.births))
        moves = found(plan.births, tape.births, tape.moved, clean)
        if self.facts.whole:
            moves = [move for move in moves if move == Move(0, len(tape.births), 0)]
        shared = shared_with(tape, self.tapes) if any(move.shift for move in moves) else 0
        if shared and not self.cells.can_own:
            moves = [move for move in moves if not move.shift or move.start >= shared]
        births = only(plan.births, moves)
        copied = sum(max(0, min(m.end, shared) - m.start) for m in moves if m.shift)
        self.check_room(copied, tape, births)
        arrange(self.cells, tape, moves, births, shared, self._births)
        held = Held(self, tape, list(prompt.tokens), births, running(plan.saw))
        tape.tokens, tape.writer, tape.owner = held.tokens, held, prompt.owner
        tape.canonical = held.canonical_len
        tape.holders.append(held)
        return held

    def _must_fork(self, source: Tape, base: Held | None) -> bool:
        """Whether somebody else still relies on what an edit in place would take away."""
        if source.writer is not None or base is None or base.tape is not source:
            return True
        return any(
            held is not base and len(held) > common_prefix(held.births, base.births) and held.intact
            for held in source.holders
        )

    def _forked(self, tenant: str, source: Tape, births: Sequence[int]) -> Tape:
        """A new tape with what is wanted of another; of one that is written on, the beginning."""
        tape = self._new_tape(tenant)
        computed = source.births[: source.computed]
        length = common_prefix(births, computed)
        if source.writer is None and any(births[length:]):
            length = len(computed)
        self.cells.share(source.seq, tape.seq, 0, length)
        tape.births = computed[:length]
        tape.moved = source.moved.intersection(tape.births)
        return tape

    def _spent(self, held: Held, splice_us: float) -> Spent:
        fresh = [i for i, birth in enumerate(held.births) if birth == HOLE]
        spliced = sum(
            birth != HOLE and bool(saw) for birth, saw in zip(held.births, held.saw, strict=True)
        )
        return Spent(fresh, len(held) - len(fresh) - spliced, spliced, splice_us)

    def _told(self, receipt: Receipt, plan: Plan, held: Held, settled: Settled) -> Receipt:
        """The receipt with what else there is to say of the turn."""
        detail: list[str] = []
        known: dict[str, Reason] = {}
        if held.births.count(HOLE) > plan.births.count(HOLE):
            known["reason"] = Reason.EVICTED
            detail.append(_GONE)
        if any(item.reason is self.facts.refusal for item in settled.items):
            detail.append(self.facts.detail)
        return receipt.model_copy(update={**known, "detail": "; ".join(detail)})

    # --- computing ---------------------------------------------------------------------------

    def compute(self, batch: Sequence[tuple[Run, int]]) -> None:
        """Compute what is pending of each run, at most so many tokens, in one decode.

        Of each run only what stands together: tokens are decoded behind a sequence's last cell.
        """
        works = [_together(run.work(limit)) for run, limit in batch]
        started = time.perf_counter()
        parts = [_part(run, work) for (run, _), work in zip(batch, works, strict=True)]
        try:
            logits = self.model.decode(parts)
        except EngineError:
            for part in parts:  # nothing of it is relied upon
                self.cells.remove(part.seq, part.position, part.position + len(part.tokens))
            raise
        seconds = time.perf_counter() - started
        for (run, _), work, rows in zip(batch, works, logits, strict=True):
            self._computed(work)
            result = rows if work.every else (rows[-1] if len(rows) else None)
            run.computed(work, Computed(result), seconds)

    def _computed(self, work: Work) -> None:
        """Number what was computed; what waited behind it comes back."""
        held, tape = work.sequence, work.sequence.tape
        start, end = int(work.positions[0]), int(work.positions[-1]) + 1
        held.births[start:end] = itertools.islice(self._births, end - start)
        while tape.parked and tape.parked[0][0] == end:
            low, end = tape.parked.pop(0)
            self.cells.share(tape.park, tape.seq, low, end)
            self.cells.remove(tape.park, low, end)

    def keep(self, run: Run) -> None:
        """The tape is whole again, and nobody computes on it."""
        held = run.sequence
        assert isinstance(held, Held)
        held.tape.writer = None
        held.tape.canonical = held.canonical_len

    # --- room --------------------------------------------------------------------------------

    def check_room(self, tokens: int, tape: Tape | None = None, births: Sequence[int] = ()) -> None:
        """Raise OutOfSlots where so many more tokens do not fit, with `births` on the tape."""
        held = [births, *(other.births for other in self.tapes if other is not tape)]
        room = self.model.num_cells - tokens
        if sum(map(len, held)) > room and num_cells(held) > room:
            raise OutOfSlots(
                f"{tokens + births.count(HOLE)} tokens do not fit: {self.num_used} of "
                f"{self.model.num_cells} cells are used; give the engine more (cells=...)"
            )

    def with_room(self, tokens: int, action: Callable[[], T]) -> T:
        """Run an allocation of about `tokens` tokens; when all is full, evict and retry."""
        try:
            return action()
        except OutOfSlots:
            room = self.freed(tokens)
            for reclaimer in self.reclaimers:
                if not room:
                    reclaimer(tokens)
                    room = self.freed(tokens)
            return action()

    def freed(self, tokens: int) -> bool:
        """Give up tapes that nobody holds, least recently used first; whether there is room now."""
        while not self._has_room(tokens):
            idle = [tape for tape in self.tapes if not tape.holders]
            if not idle:
                return False
            self._drop(min(idle, key=lambda tape: tape.used))
        return True

    def drop(self, tenant: str) -> None:
        """Give up the tapes of a tenant who comes no more, but for those that somebody holds."""
        for tape in [tape for tape in self.tapes if tape.tenant == tenant and not tape.holders]:
            self._drop(tape)

    def _has_room(self, tokens: int) -> bool:
        try:
            self.check_room(tokens)
        except OutOfSlots:
            return False
        return bool(self._free)

    def let_go(self, held: Held) -> None:
        """Somebody holds it no more. What nobody holds may serve as a canonical prefix."""
        tape = held.tape
        if held not in tape.holders:
            return
        tape.holders.remove(held)
        if tape.writer is held:
            self._cut(tape, tape.computed)
            tape.writer = None
        if not tape.holders:
            self._cut(tape, min(tape.canonical, len(tape.births)))
            if not tape.births:
                self._drop(tape)

    def _cut(self, tape: Tape, length: int) -> None:
        """Drop what stands behind the first `length` tokens, parked or not."""
        length = 0 if self.facts.whole and length < len(tape.births) else length
        if tape.parked:
            self.cells.remove(tape.park, tape.parked[0][0], tape.parked[-1][1])
            tape.parked = []
        self.cells.remove(tape.seq, length, max(length, len(tape.births)))
        tape.births, tape.tokens = tape.births[:length], tape.tokens[:length]
        tape.canonical = min(tape.canonical, length)

    def _new_tape(self, tenant: str) -> Tape:
        if not self._free:
            raise OutOfSlots(
                f"all {self.config.tapes} sequences are in use; give the engine more (tapes=...)"
            )
        tape = Tape(self._free.pop(), tenant, used=next(self._clock))
        self.tapes.append(tape)
        return tape

    def _drop(self, tape: Tape) -> None:
        self._cut(tape, 0)
        self.tapes.remove(tape)
        self._free.append(tape.seq)

    def scrub(self, session: EngineSession, keep: Cached) -> int:
        """Give up all a session had computed but what `keep` consists of.

        Cells that become free are not overwritten before they are used again: llama.cpp cannot.

        Returns:
            How many tokens' KV is not overwritten.
        """
        assert isinstance(keep, Held)
        births = {b for v in session.versions.values() for b in births_of(v.sequence)}
        for version in session.versions.values():
            version.evict()
            version.messages = None
        for tape in list(self.tapes):
            mine = tape.owner == session.id and tape.tenant == session.tenant
            if mine and not tape.holders:
                births.update(tape.births)
                self._drop(tape)
        return len(births - set(keep.births) - {HOLE})


def _together(work: Work) -> Work:
    """The leading positions that stand together."""
    apart = np.flatnonzero(np.diff(work.positions) != 1)
    return work._replace(positions=work.positions[: apart[0] + 1]) if len(apart) else work


def _part(run: Run, work: Work) -> Part:
    """Logits are computed of what asks for them: every token, or the prompt's last."""
    held, start, size = work.sequence, int(work.positions[0]), len(work.positions)
    rows = size if work.every else int(work.positions[-1] == run.pending[-1])
    return Part(held.tape.seq, held.tokens[start : start + size], start, rows)
