"""Prefill and decode against plain transformers, and what segments cost a decoding sequence.

    python benchmarks/throughput.py [--tokens 4096] [--rounds 3]
                                    [--out benchmarks/results/throughput.json]

Both sides run the same weights, dtype and threads in one process, round by round in turn.
Segments: the same 6 k-token sequence whole, with 8 and with 125 offset segments (keep-last-5 of a
75-turn run), the working copy included. Peak KV memory is measured as resident memory.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from pathlib import Path
from typing import Any

import torch
from common import interleaved, random_tokens, save

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt, Run
from leyline_agent.serving.models.embedded import DEFAULT, resolve

DECODED = 24


class Plain:
    """transformers with its own attention (sdpa) and cache."""

    def __init__(self, model: Any) -> None:
        self.model = copy.deepcopy(model)
        self.model.set_attn_implementation("sdpa")
        self.cache: Any = None

    @torch.inference_mode()
    def prefill(self, tokens: list[int]) -> None:
        """The prompt in one pass, as `generate` does it."""
        out = self.model(torch.tensor([tokens]), logits_to_keep=1)
        self.cache = out.past_key_values

    @torch.inference_mode()
    def decode(self) -> None:
        """One token after another."""
        for _ in range(DECODED):
            self.model(torch.tensor([[7]]), past_key_values=self.cache, logits_to_keep=1)


class Ours:
    """The engine; every prompt is a tenant of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.run: Run | None = None
        self._tenants = itertools.count()

    def prefill(self, tokens: list[int]) -> None:
        """The prompt, in the engine's chunks."""
        if self.run is not None:
            self.run.sequence.release()
        self.run = self.engine.start(Prompt(list(tokens), str(next(self._tenants))))
        assert self.run.receipt.prefilled == len(tokens)

    def decode(self) -> None:
        """One token after another."""
        assert self.run is not None
        for _ in range(DECODED):
            self.run.step(7)


def against_transformers(engine: Engine, length: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of both, and the ratio."""
    assert engine.model is not None
    plain, ours = Plain(engine.model.model), Ours(engine)
    seeds = itertools.count()

    def prefill(side: Plain | Ours) -> None:
        side.prefill(random_tokens(length, next(seeds)))

    times = interleaved(
        {
            "transformers prefill": lambda: prefill(plain),
            "transformers decode": plain.decode,
            "leyline prefill": lambda: prefill(ours),
            "leyline decode": ours.decode,
        },
        rounds,
    )
    assert ours.run is not None
    ours.run.sequence.release()
    speed = {
        name: round((length if "prefill" in name else DECODED) / t.median * 1e3, 1)
        for name, t in times.items()
    }
    return {
        "tokens": length,
        "ms": times,
        "tokens_per_s": speed,
        "ratios": {
            what: round(speed[f"leyline {what}"] / speed[f"transformers {what}"], 3)
            for what in ("prefill", "decode")
        },
    }


def with_segments(engine: Engine, length: int, rounds: int) -> dict[str, Any]:
    """Decoding the same number of cached tokens in 1, 8 and 125 offset segments."""
    runs = {f"{count} segments": _cut(engine, length, count) for count in (1, 8, 125)}

    def decode(run: Run) -> None:
        for _ in range(DECODED):
            run.step(7)
        run.sequence.truncate(length)

    times = interleaved({n: lambda r=r: decode(r) for n, r in runs.items()}, rounds)
    # A copy is made once a turn, before its first token: each turn's decoding bears one whole.
    copies = {name: run.receipt.copy_us / 1e3 for name, run in runs.items()}
    whole = times["1 segments"].median
    return {
        "tokens": length,
        "decoded": DECODED,
        "segments": {name: len(run.sequence.segments) for name, run in runs.items()},
        "copy_ms": {name: round(ms, 1) for name, ms in copies.items()},
        "ms": times,
        "slower_by": {n: round((t.median + copies[n]) / whole - 1, 3) for n, t in times.items()},
    }


def _cut(engine: Engine, length: int, segments: int) -> Run:
    """A run of `length` cached tokens in that many offset segments."""
    if segments == 1:
        return engine.start(Prompt(random_tokens(length, segments), "whole"))
    # n cuts leave n + 1 kept runs, and the last token, computed again, a run of its own.
    places = range(segments - 2)
    cuts = [Directive(20 + 30 * i, 30 + 30 * i, (), Mode.AMORTIZE) for i in places]
    tokens = random_tokens(length + 10 * len(cuts), segments)
    base = engine.start(Prompt(list(tokens), f"cut {segments}")).finish()
    items = [Lowered(cut, (i,), cut.mode) for i, cut in enumerate(cuts)]
    prompt = Prompt(apply(tokens, cuts), f"run {segments}", base, items, 0, 1)
    run = engine.start(prompt)
    base.release()
    assert run.receipt.reused_spliced > 0
    return run


def resident_mb() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def kv_memory(engine: Engine) -> dict[str, float]:
    """What a full context adds to the process, beside what the pool says."""
    assert engine.model is not None
    length = min(engine.max_len, 8000)
    Ours(engine).prefill(random_tokens(64, 1))  # buffers of a first pass
    before = resident_mb()
    run = engine.start(Prompt(random_tokens(length, 2), "memory"))
    grown = resident_mb() - before
    said = length * engine.executor.store.bytes_per_token / 1e6  # type: ignore[attr-defined]
    run.sequence.release()
    return {"tokens": length, "pool_says_mb": round(said, 1), "resident_mb": round(grown, 1)}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    options = parser.parse_args()
    engine = Engine.load(resolve(options.model), EngineConfig(kv_bytes=1 << 30))
    assert engine.model is not None
    figures = {
        "model": options.model,
        "dtype": str(engine.model.dtype),
        "threads": torch.get_num_threads(),
        "kv_memory": kv_memory(engine),
        "against_transformers": against_transformers(engine, options.tokens, options.rounds),
        "segments": with_segments(engine, 6000, options.rounds),
    }
    save(options.out, "throughput", figures)


if __name__ == "__main__":
    main()
