"""The kernels against what the memory can do, and the engine on top of them: one table, one CSV.

    python benchmarks/kernels.py [--out benchmarks/results/kernels.csv] [--lengths 8192,32768]

On a CUDA device: a copy, rope shift, KV store, decode attention, offsets, working copies, the
splice on the host, and the engine with random weights in the shapes of an 8B Llama and of
DeepSeek-V2-Lite. Elsewhere it says what it leaves out, and measures the splice and the engine with
`--model` on torch's path. `--dry` runs everything at toy sizes under Triton's interpreter.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rows(options: argparse.Namespace) -> Iterator:
    """What this machine can measure; the imports wait until TRITON_INTERPRET is settled."""
    from kernel_cases import DRY, Row, Sizes, cases
    from kernel_engine import LARGE, TOY, engine_rows, random_engine
    from splice import splice_times

    lengths = [int(length) for length in options.lengths.split(",") if length]
    if options.dry:
        yield from cases(DRY)
    elif DEVICE == "cuda":
        yield from cases(Sizes())
    splices = splice_times(*((2, (64,)) if options.dry else ()))
    for at, spread in splices.items():
        tokens = int(at.rpartition("_")[2])
        yield Row("splice, on the host", tokens, ms=spread.median / 1e3)
    if options.dry:
        for kernels in ("triton", "torch"):
            os.environ["LEYLINE_KERNELS"] = kernels
            engine = random_engine("toy", TOY, "cpu", 64)
            yield from engine_rows(engine, f"toy {kernels}", [64], (1, 2), 1)
    elif DEVICE == "cuda":
        for name, config in LARGE.items():
            engine = random_engine(name, config, DEVICE, max(lengths or [131_072]))
            yield from engine_rows(
                engine, name, lengths or [8192, 32_768, 131_072], (1, 2, 4, 8, 16, 32, 64), 5
            )
            del engine
            torch.cuda.empty_cache()
    else:
        yield from with_real_model(options.model, lengths)


def with_real_model(source: str, lengths: list[int]) -> Iterator:
    """The engine with real weights, on torch's path."""
    from kernel_engine import engine_rows

    from leyline_agent.serving.engine import Engine, EngineConfig
    from leyline_agent.serving.models.embedded import resolve

    engine = Engine.load(resolve(source), EngineConfig(kv_bytes=2 << 30))
    assert engine.model is not None
    name = f"{engine.model.name} {str(engine.model.dtype).removeprefix('torch.')}"
    yield from engine_rows(engine, name, lengths or [1024, 4096], (1, 8), 3)


def main() -> None:
    """Measure, print the table, write the CSV."""
    from leyline_agent.serving.models.embedded import DEFAULT

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out")
    parser.add_argument("--lengths", default="", help="of contexts, for the engine's rows")
    parser.add_argument("--model", default=DEFAULT, help="real weights, where there is no GPU")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    if options.dry:
        os.environ["TRITON_INTERPRET"] = "1"
    if options.dry or DEVICE == "cuda":
        os.environ["LEYLINE_KERNELS"] = "triton"
    found = [tuple(_shown(value) for value in row) for row in table(options)]
    if options.out:
        with Path(options.out).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(found)


def table(options: argparse.Namespace) -> Iterator[tuple]:
    """The header, then each row as soon as it is measured; printed on the way."""
    from kernel_cases import Row

    print(
        f"{torch.cuda.get_device_name() if DEVICE == 'cuda' else 'CPU'}, load {os.getloadavg()}\n"
    )
    if DEVICE != "cuda" and not options.dry:
        print("no CUDA device: bandwidths and the cost of offsets are not measured\n")
    yield Row._fields
    print(f"| {' | '.join(Row._fields)} |\n|{' --- |' * len(Row._fields)}")
    for row in rows(options):
        print(f"| {' | '.join(_shown(value) for value in row)} |", flush=True)
        yield row


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
