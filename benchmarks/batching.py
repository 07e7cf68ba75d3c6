"""Many sequences at once: decode speed against one alone, and what a prompt costs a stream.

    python benchmarks/batching.py [--model smollm2-135m] [--tokens 1024,6000] [--batch 8]
                                  [--prompt 8000] [--out benchmarks/results/batching.json]

Both arms decode through the scheduler, greedy sampling included, round by round in turn; the
sequences are random tokens and grow by what is decoded. Then a stream runs while a long prompt
comes in: the longest gap between two of its tokens, against a pass that computes one chunk of such
a prompt alone, at its end, where it is dearest.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from common import interleaved, random_tokens, save

from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.serving.run import Run
from leyline_agent.serving.sampling import Sampler
from leyline_agent.serving.scheduler import Job, Scheduler, Steps

DECODED = 24


class Passes:
    """The forward passes an engine makes: how many runs each had, how long it took."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.seconds: list[float] = []

    @contextmanager
    def watching(self, engine: Engine) -> Iterator[None]:
        """Take note of all passes within."""
        compute = engine.compute

        def watched(batch: Sequence[tuple[Run, int]]) -> None:
            started = time.perf_counter()
            compute(batch)
            self.seconds.append(time.perf_counter() - started)
            self.runs.append(len(batch))

        engine.compute = watched  # type: ignore[method-assign]
        try:
            yield
        finally:
            engine.compute = compute  # type: ignore[method-assign]


def decode(engine: Engine, runs: Sequence[Run]) -> None:
    """Continue all runs at once by `DECODED` sampled tokens."""
    scheduler = Scheduler(engine)
    tasks = [scheduler.submit(Job(lambda run=run: continued(run, DECODED, []))) for run in runs]
    scheduler.drive(lambda: scheduler.idle)
    for task in tasks:
        task.result()


def continued(run: Run, count: int, times: list[float]) -> Steps[None]:
    """Sample and compute `count` tokens; when each was there goes into `times`."""
    sampler = Sampler(temperature=0)
    for _ in range(count):
        assert run.logits is not None
        token = sampler.sample(run.logits)
        times.append(time.perf_counter())
        yield from run.engine.when_room(lambda token=token: run.append([token]))
        yield from run.computing()


def against_one(engine: Engine, length: int, batch: int, rounds: int) -> dict[str, Any]:
    """Tokens a second of one sequence and of `batch`, and the ratio."""
    runs = [
        engine.start(Prompt(random_tokens(length, number), f"{length}/{number}"))
        for number in range(batch + 1)
    ]
    passes = Passes()
    with passes.watching(engine):
        times = interleaved(
            {
                "one": lambda: decode(engine, runs[:1]),
                f"{batch} at once": lambda: decode(engine, runs[1:]),
            },
            rounds,
        )
    assert passes.runs == ([1] * DECODED + [batch] * DECODED) * (rounds + 1)
    for run in runs:
        run.abandon()
    engine.forest.evict(engine.pool.num_slots)
    one, many = (spread.median / 1e3 for spread in times.values())
    return {
        "batch": batch,
        "ms": times,
        "tokens_per_s": {"one": round(DECODED / one, 1), "all": round(batch * DECODED / many, 1)},
        "ratio": round(batch * one / many, 2),
    }


def stalled(engine: Engine, length: int) -> dict[str, Any]:
    """The longest gap of a stream while a prompt of `length` tokens is computed beside it."""
    stream = engine.start(Prompt(random_tokens(1024, 1), "stream"))
    scheduler, passes, told = Scheduler(engine), Passes(), []

    def prompted(tenant: str) -> Steps[None]:
        run = engine.open(Prompt(random_tokens(length, 2), tenant))
        try:
            yield from run.computing()
        finally:
            run.abandon()

    scheduler.run(Job(lambda: continued(stream, DECODED, told)))
    alone = [(b - a) * 1e3 for a, b in zip(told[:-1], told[1:], strict=True)]
    with passes.watching(engine):
        scheduler.run(Job(lambda: prompted("alone")))
        chunk = max(passes.seconds)
        times: list[float] = []
        steps = -(-length // (engine.config.chunk - 1)) + DECODED
        reply = scheduler.submit(Job(lambda: continued(stream, steps, times)))
        scheduler.drive(lambda: len(times) > 2)
        passes.runs.clear()
        prompt = scheduler.submit(Job(lambda: prompted("beside")))
        scheduler.drive(lambda: prompt.done and reply.done)
    together = passes.runs.count(2)
    assert together >= length // engine.config.chunk, "the stream had the passes alone"
    gaps = [(b - a) * 1e3 for a, b in zip(times[:-1], times[1:], strict=True)]
    stream.abandon()
    return {
        "prompt": length,
        "chunk": engine.config.chunk,
        "passes_together": together,
        "gap_ms": {"alone": round(statistics.median(alone), 1), "longest": round(max(gaps), 1)},
        "chunk_ms": round(chunk * 1e3, 1),
        "longest_gap_in_chunks": round(max(gaps) / chunk / 1e3, 2),
    }


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--tokens", default="1024,6000")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kv-gib", type=float, default=4.0)
    parser.add_argument("--out")
    options = parser.parse_args()
    config = EngineConfig(kv_bytes=int(options.kv_gib * 2**30))
    engine = Engine.load(resolve(options.model), config)
    assert engine.model is not None
    lengths = [int(length) for length in options.tokens.split(",")]
    figures = {
        "model": options.model,
        "dtype": str(engine.model.dtype),
        "threads": torch.get_num_threads(),
        "decode": {
            str(length): against_one(engine, length, options.batch, options.rounds)
            for length in lengths
        },
        "stall": stalled(engine, options.prompt),
    }
    save(options.out, "batching", figures)


if __name__ == "__main__":
    main()
