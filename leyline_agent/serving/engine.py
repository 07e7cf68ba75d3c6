"""The engine: prompts, directives and decoding over one KV pool. Knows tokens, not messages.

    engine = Engine.load("smollm2-135m")
    run = engine.start(Prompt(tokens=ids))
    while (token := sampler.sample(run.logits)) not in stops:
        run.step(token)
    run.finish()

One thread at a time: whoever is not alone wraps each call in `engine.exclusive()`. Runs may take
turns between calls, for each owns its slots, and many are computed at once (`Engine.compute`); who
is when is for the scheduler to say.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

import torch

from leyline_agent.directive import Mode
from leyline_agent.errors import ContextOverflow, InvalidRequest, OutOfSlots
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import EditReceipt, Receipt
from leyline_agent.serving.executor import CountingExecutor, Executor, TorchExecutor
from leyline_agent.serving.kernels.dispatch import choose, make_backend
from leyline_agent.serving.kernels.torch_backend import MAX_SEGMENTS
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent, SlotPool
from leyline_agent.serving.kv.splice import Splice, kept_pieces, splice
from leyline_agent.serving.kv.store import KVStore, bytes_per_token
from leyline_agent.serving.kv.tree import PrefixForest
from leyline_agent.serving.models.load import LoadedModel, load_model
from leyline_agent.serving.models.probe import ModelFacts
from leyline_agent.serving.models.rope import RopeSpec
from leyline_agent.serving.modes import ModeRules, Settled, kept_behind, settle
from leyline_agent.serving.repair import RepairConfig
from leyline_agent.serving.run import Run

__all__ = ["Engine", "EngineConfig", "Prompt", "Run"]

T = TypeVar("T")


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is set up.

    Attributes:
        kv_bytes: memory for keys and values, working copies included.
        dtype: "auto", "float32", "bfloat16" or "float16".
        device: where a model is loaded: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1".
        chunk: compute at most this many tokens a forward pass, of all sequences together.
        max_batch: continue at most this many sequences at once.
        max_segments: above this many segments a sequence gets a working copy.
        rules: what may strengthen a mode.
        repair: budgets of REPAIR.
    """

    kv_bytes: int = 2 << 30
    dtype: str = "auto"
    device: str = "auto"
    chunk: int = 1024
    max_batch: int = 16
    max_segments: int = MAX_SEGMENTS
    rules: ModeRules = ModeRules()
    repair: RepairConfig = RepairConfig()


@dataclass(frozen=True)
class Prompt:
    """What to run.

    Attributes:
        tokens: the whole prompt.
        tenant: whose canonical KV may be reused.
        previous: the sequence the directives edit; None for a plain prompt.
        items: the directives and where they came from (`lowering.lower`).
        appended: new tokens behind everything edited.
        version: names this commit's edits: edit i is "version.i".
        policies: for receipts, the policy behind each edit.
        owner: the session that has it computed, "" for none.
    """

    tokens: list[int]
    tenant: str = ""
    previous: CachedSequence | None = None
    items: Sequence[Lowered] = ()
    appended: int = 0
    version: int = 0
    policies: Sequence[str] = ()
    owner: str = ""


class Engine:
    """A model over a KV pool.

    Args:
        facts: what was measured of the model.
        pool: the token slots.
        executor: computes fresh tokens.
        max_len: the model's context length.
        config: see `EngineConfig`.
        model: the model, where one runs.
    """

    def __init__(
        self,
        facts: ModelFacts,
        pool: SlotPool,
        executor: Executor,
        *,
        max_len: int,
        config: EngineConfig | None = None,
        model: LoadedModel | None = None,
    ) -> None:
        self.facts = facts
        self.config = config or EngineConfig()
        self.max_len = max_len
        self.model = model
        self.pool = pool
        self.forest = PrefixForest(self.pool)
        self.executor = executor
        self.lock = threading.Lock()
        self.reclaimers: list[Callable[[int], None]] = []
        self._abandoned: deque[Run] = deque()

    @classmethod
    def load(cls, source: str | Path, config: EngineConfig | None = None) -> Engine:
        """Load a model and make an engine for it. Raises what `load_model` raises."""
        config = config or EngineConfig()
        return cls.of(load_model(source, dtype=config.dtype, device=config.device), config)

    @classmethod
    def of(cls, model: LoadedModel, config: EngineConfig | None = None) -> Engine:
        """An engine for a loaded model."""
        config = _with_delimiters(config or EngineConfig(), model)
        facts = model.facts
        size = bytes_per_token(facts.layers, model.dtype)
        copies = 0
        if choose(model.device).kernels == "torch":  # the others need none
            copies = _copy_bytes(model.max_len * size, config)
        num_slots = (config.kv_bytes - copies) // size
        store = KVStore(facts.layers, num_slots, model.dtype, model.device)
        pool = SlotPool(num_slots)
        backend = make_backend(
            store, pool, facts.rope, max_segments=config.max_segments, copy_bytes=copies
        )
        executor = TorchExecutor(model, store, backend)
        return cls(facts, pool, executor, max_len=model.max_len, config=config, model=model)

    @classmethod
    def counting(cls, num_slots: int = 1 << 20, config: EngineConfig | None = None) -> Engine:
        """An engine that does the accounting without a model, at any length."""
        anything = RopeSpec(torch.ones(1, dtype=torch.float64), "half")
        facts = ModelFacts((), anything)
        return cls(facts, SlotPool(num_slots), CountingExecutor(), max_len=1 << 40, config=config)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the engine. Not re-entrant."""
        with self.lock:
            self._drop_abandoned()
            yield

    def abandon(self, run: Run) -> None:
        """End a run nobody wants any more, at once or as soon as the engine is free.

        For the end of a generator, which the garbage collector may bring about on any thread,
        even on one that holds the engine.
        """
        self._abandoned.append(run)
        if self.lock.acquire(blocking=False):
            try:
                self._drop_abandoned()
            finally:
                self.lock.release()

    def _drop_abandoned(self) -> None:
        while self._abandoned:
            self._abandoned.popleft().abandon()

    def start(self, prompt: Prompt) -> Run:
        """Splice, prefill and repair: everything up to the prompt's last logits.

        Raises:
            ContextOverflow: the prompt is longer than the model's context.
            OutOfSlots: it does not fit the pool even after evicting everything idle.
        """
        run = self.open(prompt)
        try:
            while len(run.pending):
                run.prefill()
        except BaseException:
            run.abandon()
            raise
        return run

    def open(self, prompt: Prompt) -> Run:
        """Splice only: a run whose fresh tokens `Run.prefill` computes. Raises as `start`."""
        if not prompt.tokens:
            raise InvalidRequest("a prompt needs at least one token")
        self.check_length(len(prompt.tokens))
        started = time.perf_counter()
        settled = self._settle(prompt)
        previous_len = len(prompt.previous) if prompt.previous else 0
        done, splice_us, edit_us = self._splice(prompt, settled)
        receipt = _receipt(prompt, previous_len, settled, done, splice_us, edit_us)
        run = Run(
            self, prompt.tenant, done.sequence, done.fresh, receipt, settled, owner=prompt.owner
        )
        run.seconds = time.perf_counter() - started
        return run

    def compute(self, batch: Sequence[tuple[Run, int]]) -> None:
        """Compute what is pending of each run, at most so many tokens, all in one forward pass."""
        works = [run.work(limit) for run, limit in batch]
        started = time.perf_counter()
        results = self.executor.forward(works)
        seconds = time.perf_counter() - started
        for (run, _), work, result in zip(batch, works, results, strict=True):
            run.computed(work, result, seconds)

    def check_length(self, length: int) -> None:
        """Raise ContextOverflow when `length` tokens are more than the model's context."""
        if length > self.max_len:
            raise ContextOverflow(
                f"{length} tokens do not fit the model's context of {self.max_len}; shorten the "
                "conversation, or let a policy do it"
            )

    def with_room(self, tokens: int, action: Callable[[], T], reused: Iterable[Extent] = ()) -> T:
        """Run an allocation of about `tokens` slots; when the pool is full, evict and retry.

        Slots that the action will reuse are not given up, whoever holds them now.
        """
        try:
            return action()
        except OutOfSlots:
            held = list(reused)
            self.pool.retain(held)
            try:
                self.reclaim(tokens)
                return action()
            finally:
                self.pool.release(held)

    def when_room(self, action: Callable[[], T]) -> Generator[OutOfSlots, None, T]:
        """What an allocation returns, holding the engine; yields what it lacks until it has it."""
        while True:
            with self.exclusive():
                try:
                    return action()
                except OutOfSlots as error:
                    lacking = error
            yield lacking

    def reclaim(self, tokens: int) -> None:
        """Make room: idle cached prefixes first, then whatever the reclaimers give up."""
        self.forest.evict(tokens - self.pool.num_free)
        for reclaimer in self.reclaimers:
            if self.pool.num_free >= tokens:
                return
            reclaimer(tokens)
            self.forest.evict(tokens - self.pool.num_free)

    def _settle(self, prompt: Prompt) -> Settled:
        previous = prompt.previous.tokens if prompt.previous else []
        config = self.config
        return settle(
            previous, prompt.items, prompt.appended, self.facts, config.rules, config.repair
        )

    def _splice(self, prompt: Prompt, settled: Settled) -> tuple[Splice, float, float]:
        """The sequence with holes; microseconds of the whole splice and of one directive."""
        match = self.forest.tree(prompt.tenant).match(prompt.tokens)
        started = time.perf_counter()
        ids = [f"{prompt.version}.{index}" for index in range(len(settled.items))]
        pieces = []
        if prompt.previous is not None:
            pieces = kept_pieces(prompt.previous, settled.directives, ids)
        cached = match.length + sum(
            max(0, piece.end - max(piece.start, match.length)) for piece in pieces
        )
        done = self.with_room(
            len(prompt.tokens) - cached + len(settled.repair.positions) + 1,
            lambda: splice(
                self.pool, prompt.tokens, pieces, match.extents, settled.repair.positions
            ),
            reused=chain(match.extents, (s.extent for piece in pieces for s in piece.segments)),
        )
        microseconds = (time.perf_counter() - started) * 1e6
        return done, microseconds, microseconds / max(1, len(settled.items))


def _with_delimiters(config: EngineConfig, model: LoadedModel) -> EngineConfig:
    """The model's special tokens delimit messages, unless the configuration says what does."""
    if not config.repair.delimiter or config.repair.delimiter_ids or model.tokenizer is None:
        return config
    ids = frozenset(model.tokenizer.all_special_ids)
    return replace(config, repair=replace(config.repair, delimiter_ids=ids))


def _copy_bytes(context: int, config: EngineConfig) -> int:
    """Memory kept free of slots for working copies.

    A quarter of it, but at least one whole context and no more than every sequence's; never more
    than half. `context` is what one takes.
    """
    wanted = max(context, min(config.kv_bytes // 4, context * config.max_batch))
    return min(wanted, config.kv_bytes // 2)


def _receipt(
    prompt: Prompt,
    previous_len: int,
    settled: Settled,
    done: Splice,
    splice_us: float,
    edit_us: float,
) -> Receipt:
    """The figures of a run; `Receipt` checks that they add up."""
    fresh = set(done.fresh.tolist())
    counts = {kind: len(fresh & where) for kind, where in settled.repair.kinds.items()}
    recomputed = sum(counts.values())
    directives = settled.directives
    return Receipt(
        version=prompt.version,
        previous=previous_len,
        prompt=len(prompt.tokens),
        reused_exact=done.exact,
        reused_spliced=done.spliced,
        recomputed=recomputed,
        prefilled=len(fresh) - recomputed,
        removed=sum(d.end - d.start for d in directives),
        inserted=sum(len(d.replacement) for d in directives),
        appended=len(prompt.tokens) if prompt.previous is None else prompt.appended,
        edits=_edit_receipts(prompt, previous_len, settled, counts, edit_us),
        repair="full",
        splice_us=splice_us,
    )


def _edit_receipts(
    prompt: Prompt, length: int, settled: Settled, counts: dict[str, int], microseconds: float
) -> tuple[EditReceipt, ...]:
    """One receipt a directive; the repair of a commit is told at its first REPAIR."""
    modes = [item.directive.mode for item in settled.items]
    repaired = modes.index(Mode.REPAIR) if Mode.REPAIR in modes else None
    return tuple(
        EditReceipt(
            id=f"{prompt.version}.{index}",
            start=item.directive.start,
            end=item.directive.end,
            inserted=len(item.directive.replacement),
            mode_asked=item.asked,
            mode_used=item.directive.mode,
            reason=item.reason,
            suffix=kept_behind(settled.items, index, length),
            recomputed=counts if index == repaired else {},
            microseconds=microseconds,
            policy="+".join(
                dict.fromkeys(prompt.policies[i] for i in item.edits if prompt.policies)
            ),
        )
        for index, item in enumerate(settled.items)
    )
