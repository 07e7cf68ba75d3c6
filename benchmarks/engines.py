"""The engines side by side: one edited conversation, the time to its first tokens, what it cost.

    python benchmarks/engines.py [--rounds 3] [--scale 1] [--engines bundled,vllm,llama.cpp]
                                 [--out benchmarks/results/engines.json]

SmolLM2 in every engine. A prompt of some 5,000 tokens; then a turn that drops 1,500 of them in
front of 3,000, a turn that replaces another 1,500 by a line, and a turn without an edit. Arms: an
exact prefix cache (the engine as it comes), AMORTIZE and REPAIR through Leyline's adapter. Every
round is a conversation of its own, arms in turn. Takes some 3 minutes a round, and 3 to start.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import Spread, save, spread
from engine_peers import ENGINES, Peer, Setup, count, missing, named, peers, share

from leyline_agent.serving.models.embedded import DEFAULT

TURNS = ("prompt", "cut", "stub", "append")
EDITED = ("cut", "stub")


class Arm(NamedTuple):
    """A way to serve the conversation.

    Attributes:
        engine: whose.
        mode: "prefix_cache", "amortize" or "repair".
        splices: whether the engine's process is one that could splice.
    """

    engine: str
    mode: str
    splices: bool

    @property
    def name(self) -> str:
        """For tables."""
        idle = ", connector unused" if self.splices and self.mode == "prefix_cache" else ""
        return f"{self.engine} {self.mode}{idle}"


def arms_of(engines: Sequence[str]) -> list[Arm]:
    """Each engine's arms; vLLM also with the connector there and nothing asked of it."""
    found = []
    for engine in engines:
        found.append(Arm(engine, "prefix_cache", False))
        if engine == "vllm":
            found.append(Arm(engine, "prefix_cache", True))
        found += [Arm(engine, mode, True) for mode in ("amortize", "repair")]
    return found


def play(
    arms: Sequence[Arm], engines: Mapping[Any, Peer], rounds: int, scale: float, warmups: int = 1
) -> dict[str, list[dict[str, Any]]]:
    """Each arm's rounds, without the warm-ups in front of them."""
    found: dict[str, list[dict[str, Any]]] = {arm.name: [] for arm in arms}
    for number in range(rounds + warmups):
        for arm in arms:
            mark = f"Conversation {number} of {arm.name}."
            peer = engines[arm.engine, arm.splices]
            done = peer.do(do="play", arm=arm.mode, mark=mark, scale=scale)
            if arm.mode != "prefix_cache":
                for row in done["turns"]:
                    if row["turn"] in EDITED and not row["reused_spliced"]:
                        raise SystemExit(f"{arm.name}: nothing was spliced: {row}")
            if number >= warmups:
                found[arm.name].append(done)
        print(f"round {number + 1} of {rounds + warmups} is through", flush=True)
    return found


def figures_of(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One arm's figures: spreads of the times, the last round's counts."""
    turns = {}
    for at, name in enumerate(TURNS):
        rows = [done["turns"][at] for done in rounds]
        counts = {k: v for k, v in rows[-1].items() if k not in ("turn", "ttft_ms", "splice_us")}
        turns[name] = {
            "ttft_ms": spread([row["ttft_ms"] for row in rows]),
            "splice_ms": spread([row["splice_us"] / 1e3 for row in rows]),
            **counts,
        }
    return {"turns": turns, "peak_mb": max(done["peak_mb"] for done in rounds)}


def table(arms: Sequence[Arm], found: Mapping[str, Any]) -> str:
    """Markdown: times of the edited turns, what was computed for them, memory."""
    lines = [
        "| | cut: first token, ms | computed (new) | stub: first token, ms | computed (new) |"
        " without an edit, ms | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for arm in arms:
        turns, cells = found[arm.name]["turns"], []
        for name in EDITED:
            row = turns[name]
            cells += [times(row["ttft_ms"]), f"{row['recomputed'] + row['prefilled']:,}"]
            cells[-1] += f" ({row['new']})" if arm.mode != "prefix_cache" else ""
        cells += [times(turns["append"]["ttft_ms"]), f"{found[arm.name]['peak_mb']:,.0f}"]
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def times(value: Spread) -> str:
    """A median with its extremes."""
    return f"{value.median:,.0f} ({value.low:,.0f}–{value.high:,.0f})"


def ratios(arms: Sequence[Arm], found: Mapping[str, Any]) -> dict[str, float]:
    """How many times sooner than the same engine's prefix cache the first token came."""
    told = {}
    for arm in arms:
        plain = found[Arm(arm.engine, "prefix_cache", False).name]["turns"]
        for name in TURNS:
            mine = found[arm.name]["turns"][name]["ttft_ms"].median
            told[f"{name}: {arm.name}"] = round(plain[name]["ttft_ms"].median / mine, 3)
    return told


def main() -> None:
    """Measure, print a table and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--scale", type=share, default=1.0, help="of the conversation")
    parser.add_argument("--engines", type=named, default=list(ENGINES), help=",".join(ENGINES))
    parser.add_argument("--threads", type=count, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out")
    options = parser.parse_args()
    skipped = [why for name in options.engines if (why := missing(name))]
    print("\n".join(skipped))
    arms = arms_of([name for name in options.engines if not missing(name)])
    with tempfile.TemporaryDirectory() as scratch:
        setup = Setup(DEFAULT, options.threads, 8192, 1, Path(scratch))
        wanted = list(dict.fromkeys((arm.engine, arm.splices) for arm in arms))
        with peers(wanted, setup) as engines:
            versions = {name: peer.version for (name, _), peer in engines.items()}
            played = play(arms, engines, options.rounds, options.scale)
    found = {name: figures_of(rounds) for name, rounds in played.items()}
    print(table(arms, found))
    figures = {"model": DEFAULT, "threads": options.threads, "scale": options.scale}
    figures |= {"rounds": options.rounds, "engines": versions, "left_out": skipped}
    save(options.out, "engines", {**figures, "arms": found, "sooner": ratios(arms, found)})


if __name__ == "__main__":
    main()
