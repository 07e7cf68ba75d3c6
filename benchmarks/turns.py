"""Time to the first token of the turn after an edit, arm by arm in one run.

    python benchmarks/turns.py [--tokens 6144] [--rounds 5] [--out benchmarks/results/turns.json]
                               [--llama-cpp PYTHON --gguf-f16 FILE]

A cached sequence of n tokens; a quarter of it is cut out at n/8; 16 new tokens follow. Arms: the
same turn without an edit, AMORTIZE, REPAIR, FORGET. With `--llama-cpp`, an interpreter that has
llama-cpp-python 0.3.36, llama.cpp does the same edit by seq_rm + seq_add on the same weights, its
rounds in between ours.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from common import interleaved, random_tokens, save, spread

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Receipt
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.models.embedded import DEFAULT, resolve

NEW_TOKENS = 16
CHILD = Path(__file__).parent / "llama_cpp_child.py"


class Edits:
    """Runs the same edit of the same cached sequence, again and again."""

    def __init__(self, engine: Engine, length: int) -> None:
        self.engine = engine
        self.length = length
        self.tokens = random_tokens(length, 0)
        self.base: CachedSequence = engine.start(Prompt(list(self.tokens), "base")).finish()
        self.receipts: dict[str, Receipt] = {}
        self._seeds = itertools.count(1)

    def turn(self, name: str, mode: Mode | None) -> None:
        """One turn; every turn is a tenant of its own, so no prefix tree helps it."""
        items: list[Lowered] = []
        if mode is not None:
            start = self.length // 8
            cut = Directive(start, start + self.length // 4, (), mode)
            items = [Lowered(cut, (0,), mode)]
        seed = next(self._seeds)
        tokens = apply(self.tokens, [item.directive for item in items])
        tokens += random_tokens(NEW_TOKENS, seed)
        prompt = Prompt(tokens, str(seed), self.base, items, NEW_TOKENS, seed)
        run = self.engine.start(prompt)
        self.receipts[name] = run.receipt
        run.sequence.release()


class LlamaCpp:
    """llama.cpp in a process of its own; one line in, one round's figures out."""

    def __init__(self, python: str, gguf: str, length: int) -> None:
        command = [python, str(CHILD), gguf, str(length), str(torch.get_num_threads())]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rounds: list[dict[str, float]] = []
        self._answer()

    def round(self) -> None:
        """One edit by seq_rm + seq_add and one by re-prefill."""
        assert self.process.stdin is not None
        self.process.stdin.write("round\n")
        self.process.stdin.flush()
        self.rounds.append(self._answer())

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the llama.cpp process ended; run it by hand to see why")
        answer: dict[str, float] = json.loads(line)
        return answer

    def figures(self) -> dict[str, Any]:
        """Spreads, without the first round (a warm-up)."""
        counted = self.rounds[1:]
        return {key: spread([r[key] for r in counted]) for key in counted[0]}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--tokens", type=int, default=6144)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama-cpp", metavar="PYTHON")
    parser.add_argument("--gguf-f16", metavar="FILE")
    parser.add_argument("--out")
    options = parser.parse_args()

    engine = Engine.load(resolve(options.model), EngineConfig(kv_bytes=1 << 30))
    edits = Edits(engine, options.tokens)
    modes = {"append": None, **{mode.value: mode for mode in Mode}}
    arms = {name: lambda n=name, m=mode: edits.turn(n, m) for name, mode in modes.items()}
    peer = None
    if options.llama_cpp:
        peer = LlamaCpp(options.llama_cpp, options.gguf_f16, options.tokens)
        arms["llama.cpp round"] = peer.round
    times = interleaved(arms, options.rounds)
    times.pop("llama.cpp round", None)
    for mode in (Mode.AMORTIZE, Mode.REPAIR):
        assert edits.receipts[mode.value].reused_spliced > 0, f"{mode.value} spliced nothing"
    amortize = times["amortize"].median
    ratios = {f"amortize / {name}": round(amortize / t.median, 3) for name, t in times.items()}
    figures: dict[str, Any] = {
        "model": options.model,
        "dtype": str(engine.model.dtype) if engine.model else "",
        "tokens": options.tokens,
        "threads": torch.get_num_threads(),
        "ttft_ms": times,
        "receipts": {
            name: {
                "exact": r.reused_exact,
                "spliced": r.reused_spliced,
                "recomputed": r.recomputed,
                "prefilled": r.prefilled,
                "splice_us": round(r.splice_us, 1),
            }
            for name, r in edits.receipts.items()
        },
    }
    if peer is not None:
        figures["llama_cpp_ms"] = peer.figures()
        theirs = figures["llama_cpp_ms"]["splice_ms"].median
        ratios["amortize / llama.cpp seq_add"] = round(amortize / theirs, 3)
    figures["ratios"] = ratios
    save(options.out, "turns", figures)


if __name__ == "__main__":
    main()
