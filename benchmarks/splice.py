"""What an edit itself costs, and what it does to the keys.

    python benchmarks/splice.py [--model M] [--out benchmarks/results/splice.json]

* a splice by sequence length: host time a directive, one after another, and with the processor's
  caches emptied before each; no KV moves (kept tokens keep their slots);
* 1,000 edits one after another: error of the keys attention sees, against exact float64 rotation,
  zero-copy and in a working copy, beside the storage floor (bfloat16 rounding of the exact key);
* a working copy of 4,096 tokens, and a plain copy of as many bytes, one a round in turn.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
import torch
from common import Spread, interleaved, random_tokens, save, spread

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent, SlotPool
from leyline_agent.serving.kv.splice import kept_pieces, splice
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.kv.working_copy import WorkingCopy
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.serving.models.probe import KVShape
from leyline_agent.serving.models.rope import RopeSpec

HEAD_DIM = 64
CACHE_BYTES = 64 << 20  # more than the processor's caches hold


def splice_times(
    rounds: int = 200, lengths: tuple[int, ...] = (2_048, 8_192, 32_768, 131_072)
) -> dict[str, Spread]:
    """Microseconds of one directive at growing lengths; the suffix is 7/8 of the sequence."""
    result: dict[str, Spread] = {}
    evicting = np.zeros(CACHE_BYTES, np.uint8)
    for length in lengths:
        pool = SlotPool(2 * length)
        sequence = CachedSequence(pool)
        sequence.extend(list(range(length)))
        cut = [
            Directive(length // 8, length // 8 + min(200, length // 4), (1, 2, 3), Mode.AMORTIZE)
        ]
        tokens = apply(sequence.tokens, cut)
        for name, emptied in (("us_at", False), ("us_cold_at", True)):
            times = []
            for _ in range(rounds):
                prompt = list(tokens)
                if emptied:
                    evicting += 1
                started = time.perf_counter()
                done = splice(pool, prompt, kept_pieces(sequence, cut, ["edit"]))
                times.append((time.perf_counter() - started) * 1e6)
                last = done.sequence.extents()
                done.sequence.release()
            result[f"{name}_{length}"] = spread(times)
        kept = set(_slots(sequence.extents())) & set(_slots(last))
        assert len(kept) == done.exact + done.spliced, "kept tokens must keep their slots"
    return result


def _slots(extents: list[Extent]) -> list[int]:
    return [slot for extent in extents for slot in range(*extent)]


def drift(edits: int = 1_000, theta: float = 5e5) -> dict[str, float]:
    """Relative error of the keys attention sees after `edits` successive cuts, bfloat16 store."""
    exponents = torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM
    rope = RopeSpec(1.0 / theta**exponents, "half")
    length, tail = 110 * edits, 512
    pool, rng = SlotPool(length + 8), random.Random(0)  # room to compute the last token
    store = KVStore([KVShape(1, HEAD_DIM, HEAD_DIM, None)], length + 8, torch.bfloat16)
    sequence = CachedSequence(pool)
    sequence.extend([0] * length)
    plain = torch.randn(tail, 1, HEAD_DIM, dtype=torch.float64)
    where = torch.arange(length - tail, length)
    store.keys[0][length - tail : length] = _turn(rope, plain, where).to(torch.bfloat16)
    for number in range(edits):
        start = rng.randrange(0, len(sequence) - tail - 110)
        cut = [Directive(start, start + rng.randrange(1, 100), (), Mode.AMORTIZE)]
        done = splice(pool, apply(sequence.tokens, cut), kept_pieces(sequence, cut, [str(number)]))
        sequence.release()
        sequence = done.sequence
    moved = length - len(sequence)
    exact = _turn(rope, plain, where - moved)[:-1]  # the last token was computed again each time
    floor = exact.to(torch.bfloat16).double()
    seen = _turn(
        rope, store.keys[0][length - tail : length - 1].double(), torch.full((tail - 1,), -moved)
    )
    copy = WorkingCopy(store, pool, rope)
    copy.update(sequence.segments)
    copied = copy.keys[0][len(sequence) - tail : len(sequence) - 1].double()
    error = {
        name: float((keys - exact).norm() / exact.norm())
        for name, keys in (("floor", floor), ("zero_copy", seen), ("working_copy", copied))
    }
    return {"edits": edits, "tokens_removed": moved, **error}


def _turn(rope: RopeSpec, keys: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    """Exact rotation in float64: keys [n, 1, d] by integer deltas [n]."""
    angles = deltas.double()[:, None, None] * rope.inv_freq
    first, second = keys.chunk(2, -1)
    return torch.cat(
        (
            first * angles.cos() - second * angles.sin(),
            second * angles.cos() + first * angles.sin(),
        ),
        -1,
    )


def copy_times(model: str, rounds: int = 15) -> dict[str, object]:
    """Milliseconds to gather and rotate a working copy of 4,096 tokens in 125 segments."""
    engine = Engine.load(resolve(model), EngineConfig(kv_bytes=1 << 30))
    tokens = random_tokens(5_600, 0)
    base = engine.start(Prompt(list(tokens))).finish()
    cuts = [Directive(40 * i, 40 * i + 12, (), Mode.AMORTIZE) for i in range(125)]
    ids = [str(i) for i in range(125)]
    done = splice(engine.pool, apply(tokens, cuts), kept_pieces(base, cuts, ids))
    store = engine.executor.store  # type: ignore[attr-defined]
    copy = WorkingCopy(store, engine.pool, engine.facts.rope)
    copy.update(done.sequence.segments)  # the first one also reserves memory
    gathered = len(apply(tokens, cuts))
    source = [t[:gathered] for t in (*store.keys, *store.values)]
    target = [torch.empty_like(t) for t in source]

    def gather() -> None:
        copy.invalidate()
        assert copy.update(done.sequence.segments) == gathered

    def plain() -> None:
        for to, what in zip(target, source, strict=True):
            to.copy_(what)

    times = interleaved({"working copy": gather, "plain copy": plain}, rounds)
    return {
        "tokens": gathered,
        "segments": len(done.sequence.segments),
        "megabytes": round(gathered * store.bytes_per_token / 1e6, 1),
        "ms": times["working copy"],
        "plain_copy_ms": times["plain copy"],
        "ratio": round(times["working copy"].median / times["plain copy"].median, 2),
    }


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--out")
    options = parser.parse_args()
    figures = {
        "splice": splice_times(),
        "drift": drift(),
        "working_copy": copy_times(options.model),
    }
    save(options.out, "splice", figures)


if __name__ == "__main__":
    main()
