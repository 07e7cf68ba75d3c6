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

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch

from leyline_agent.directive import strongest
from leyline_agent.errors import InvalidRequest, OutOfSlots
from leyline_agent.serving.executor import CountingExecutor, Executor, TorchExecutor
from leyline_agent.serving.fidelity import fitness
from leyline_agent.serving.host import Host
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
from leyline_agent.serving.modes import ModeRules, Settled, settle
from leyline_agent.serving.prompt import Prompt, Spent, receipt_of
from leyline_agent.serving.repair import RepairConfig
from leyline_agent.serving.run import Run
from leyline_agent.serving.sampling import Sampler
from leyline_agent.serving.scrub import scrub
from leyline_agent.serving.sessions import EngineSession
from leyline_agent.serving.wire import SamplingRequest
from leyline_agent.serving.work import Cached, Logits

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
        fidelity_report: a report of `leyline fidelity` on this model, whose floor is obeyed.
    """

    kv_bytes: int = 2 << 30
    dtype: str = "auto"
    device: str = "auto"
    chunk: int = 1024
    max_batch: int = 16
    max_segments: int = MAX_SEGMENTS
    rules: ModeRules = ModeRules()
    repair: RepairConfig = RepairConfig()
    fidelity_report: str | Path | None = None


class Engine(Host):
    """A model over a KV pool.

    Args:
        facts: what was measured of the model.
        pool: the token slots.
        executor: computes fresh tokens.
        max_len: the model's context length.
        config: see `EngineConfig`.
        model: the model, where one runs.
    """

    config: EngineConfig
    model: LoadedModel | None

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
        super().__init__(config or EngineConfig(), max_len)
        self.facts = facts
        self.model = model
        self.pool = pool
        self.forest = PrefixForest(self.pool)
        self.executor = executor

    @classmethod
    def load(cls, source: str | Path, config: EngineConfig | None = None) -> Engine:
        """Load a model and make an engine for it. Raises what `load_model` raises."""
        config = config or EngineConfig()
        return cls.of(load_model(source, dtype=config.dtype, device=config.device), config)

    @classmethod
    def of(cls, model: LoadedModel, config: EngineConfig | None = None) -> Engine:
        """An engine for a loaded model.

        Raises:
            EngineError: the fidelity report is none, or of another model or repair set.
        """
        config = _obeying(config or EngineConfig(), model)
        config = _with_delimiters(config, model)
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

    def open(self, prompt: Prompt) -> Run:
        """Splice only: a run whose fresh tokens `Run.prefill` computes. Raises as `start`."""
        if not prompt.tokens:
            raise InvalidRequest("a prompt needs at least one token")
        self.check_length(len(prompt.tokens))
        started = time.perf_counter()
        settled = self._settle(prompt)
        previous_len = len(prompt.previous) if prompt.previous else 0
        done, splice_us = self._splice(prompt, settled)
        spent = Spent(done.fresh.tolist(), done.exact, done.spliced, splice_us)
        receipt = receipt_of(prompt, previous_len, settled, spent)
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

    def reclaim(self, tokens: int) -> None:
        """Make room: idle cached prefixes first, then whatever the reclaimers give up."""
        room = self.freed(tokens)
        for reclaimer in self.reclaimers:
            if room:
                return
            reclaimer(tokens)
            room = self.freed(tokens)

    def freed(self, tokens: int) -> bool:
        """Give up idle cached prefixes for so many tokens; whether there is room now."""
        self.forest.evict(tokens - self.pool.num_free)
        return self.pool.num_free >= tokens

    def drop(self, tenant: str) -> None:
        """Give up the idle cached prefixes of a tenant who comes no more."""
        self.forest.drop(tenant)

    def keep(self, run: Run) -> None:
        """Put what is canonical of a run that has ended into its tenant's tree."""
        sequence = run.sequence
        assert isinstance(sequence, CachedSequence)
        if length := sequence.canonical_len:
            tree = self.forest.tree(run.tenant)
            tree.insert(sequence.tokens[:length], sequence.extents(0, length), run.owner)

    def scrub(self, session: EngineSession, keep: Cached) -> int:
        """`serving.scrub.scrub`."""
        assert isinstance(keep, CachedSequence)
        return scrub(self, session, keep)

    @property
    def vocab_size(self) -> int | None:
        """How many tokens the model knows; None where no model runs."""
        if self.model is None:
            return None
        network: Any = self.model.model
        size: int = network.get_input_embeddings().num_embeddings
        return size

    def sampler(self, request: SamplingRequest) -> Sampler:
        """A request's sampler; OpenAI's defaults where the request says nothing."""
        return Sampler(
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=request.top_p or 1.0,
            top_k=request.top_k or 0,
            seed=request.seed,
        )

    def joined(self, rows: Sequence[Logits]) -> Logits:
        """Logits one behind the other."""
        return torch.cat(list(rows))

    def _settle(self, prompt: Prompt) -> Settled:
        previous = prompt.previous.tokens if prompt.previous else []
        config = self.config
        return settle(
            previous, prompt.items, prompt.appended, self.facts, config.rules, config.repair
        )

    def _splice(self, prompt: Prompt, settled: Settled) -> tuple[Splice, float]:
        """The sequence with holes; microseconds of the whole splice."""
        match = self.forest.tree(prompt.tenant).match(prompt.tokens)
        started = time.perf_counter()
        ids = [f"{prompt.version}.{index}" for index in range(len(settled.items))]
        pieces = []
        if prompt.previous is not None:
            assert isinstance(prompt.previous, CachedSequence)
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
        return done, microseconds


def _obeying(config: EngineConfig, model: LoadedModel) -> EngineConfig:
    """With the floor of the fidelity report, where one is named."""
    if config.fidelity_report is None:
        return config
    floor = fitness(config.fidelity_report, model, config.repair).floor
    rules = replace(config.rules, fidelity_floor=strongest(floor, config.rules.fidelity_floor))
    return replace(config, rules=rules)


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
