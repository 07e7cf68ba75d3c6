"""Fidelity across engines: what a splice changes in the predictions, on the same recorded edits.

    python benchmarks/engine_fidelity.py [FILE ...] [--policy keep_last:n=5] [--runs 4] [--turns 6]
                                         [--out benchmarks/results/engine_fidelity.json]

Each engine plays the same recorded runs through Leyline's adapter. Where a turn is spliced it
answers greedily; then it answers the same prompt without the splice (its own re-prefill), and that
once more through its prefix cache (its noise floor). Compared are the turns that every engine
spliced in that mode: the likeliest tokens of every position up to the first
where two answers differ.
Without files: the demo's recording.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import save
from engine_peers import ENGINES, ROOT, Peer, Setup, count, missing, named, peers

from leyline_agent.readers import read
from leyline_agent.serving.models.embedded import DEFAULT
from leyline_evals.fidelity.statistics import interval

DEMO = ROOT / "evals" / "leyline_evals" / "demo" / "recording.json"
MODES = ("amortize", "repair")
CHARS = 24_000  # of a prompt: some 8,000 tokens, what the model's context holds
TOP = 20  # as many as OpenAI's API gives
TINY = 1e-9  # what rounded log probabilities leave of nothing

Answer = Sequence[Mapping[str, Any]]


class Position(NamedTuple):
    """One token's predictions, compared.

    Attributes:
        kl: as `kl` says.
        same: whether the likeliest token is the same.
    """

    kl: float
    same: bool


def kl(honest: Mapping[str, float], other: Mapping[str, float]) -> float:
    """KL(honest || other) in nats, from the log probabilities of the likeliest tokens alone.

    A lower bound: lumping outcomes together never makes a divergence larger. Three lumps: each
    token both name; what only `honest` names, which is no likelier elsewhere than the least
    likely token named there; all others.
    """
    both = honest.keys() & other.keys()
    found = sum(math.exp(honest[token]) * (honest[token] - other[token]) for token in both)
    alone = [math.exp(value) for token, value in honest.items() if token not in both]
    here, there = (1 - sum(math.exp(one[token]) for token in both) for one in (honest, other))
    here, there = max(here, TINY), max(there, TINY)
    p = min(sum(alone), here)
    q = min(len(alone) * math.exp(min(other.values())), there * p / here)
    found += _share(p, q) + _share(here - p, there - q)
    return max(found, 0.0)


def _share(p: float, q: float) -> float:
    return p * math.log(p / max(q, TINY)) if p > TINY else 0.0


def positions(honest: Answer, other: Answer) -> Iterator[Position]:
    """Every position both answers reached behind the same tokens."""
    for mine, theirs in zip(honest, other, strict=False):
        same = mine["token"] == theirs["token"]
        yield Position(kl(mine["top"], theirs["top"]), same)
        if not same:
            return


def summary(rows: Sequence[Mapping[str, Any]], other: str) -> dict[str, Any]:
    """How near an answer is to the honest one; intervals are over turns, drawn whole."""
    turns = [list(positions(row["said"]["honest"], row["said"][other])) for row in rows]
    clusters = [str(number) for number, turn in enumerate(turns) for _ in turn]
    found = [one for turn in turns for one in turn]
    agreement = interval([float(one.same) for one in found], clusters)
    divergence = interval([one.kl for one in found], clusters)
    return {
        "positions": len(found),
        "agreement": [round(value, 4) for value in agreement],
        "first_token_agreement": round(statistics.fmean(turn[0].same for turn in turns), 4),
        "kl": [round(value, 5) for value in divergence],
        "kl_median": round(statistics.median(one.kl for one in found), 5),
    }


def compared(
    peer: Peer, mode: str, files: Sequence[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The spliced turns of all runs, with what was said in them."""
    rows: list[dict[str, Any]] = []
    for file in files:
        held = sum(1 for _ in read(file))
        for number in range(min(held, options.runs)):
            job = {"arm": mode, "file": file, "number": number, "policy": options.policy}
            job |= {"turns": options.turns, "tokens": options.tokens, "top": TOP, "chars": CHARS}
            for row in peer.do(do="compare", **job)["rows"]:
                rows.append({**row, "turn": (shown(file), number, row["index"])})
    return rows


def shared(rows: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Each arm's rows of the turns that every arm spliced."""
    turns = set.intersection(*({row["turn"] for row in own} for own in rows.values()))
    if not turns:
        raise SystemExit("no turn was spliced in every arm; take another policy or other runs")
    return {name: [row for row in own if row["turn"] in turns] for name, own in rows.items()}


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One engine's figures in one mode."""
    return {
        "turns": len(rows),
        "spliced_median": statistics.median(row["reused_spliced"] for row in rows),
        "recomputed_median": statistics.median(row["recomputed"] for row in rows),
        "spliced": summary(rows, "spliced"),
        "noise_floor": summary(rows, "again"),
    }


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| | turns | tokens compared | same next token | the noise floor | KL, mean |"
        " the noise floor |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in found.items():
        spliced, floor = one["spliced"], one["noise_floor"]
        cells = [str(one["turns"]), str(spliced["positions"])]
        for part in (spliced, floor):
            mean, low, high = (100 * value for value in part["agreement"])
            cells.append(f"{mean:.1f} % ({low:.1f}–{high:.1f})")
        for part in (spliced, floor):
            mean, low, high = part["kl"]
            cells.append(f"{mean:.4f} ({low:.4f}–{high:.4f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(file: str) -> str:
    """A file's name without the place where this machine keeps it."""
    kept = os.environ.get("LEYLINE_TRAJECTORIES", "")
    for folder, name in ((kept, "$LEYLINE_TRAJECTORIES"), (str(ROOT), "")):
        if folder and Path(file).resolve().is_relative_to(Path(folder).resolve()):
            return str(Path(name) / Path(file).resolve().relative_to(Path(folder).resolve()))
    return Path(file).name


def main() -> None:
    """Measure, print a table and save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", default=[str(DEMO)])
    parser.add_argument("--policy", default="keep_last:n=5")
    parser.add_argument("--runs", type=count, default=4, help="of each file")
    parser.add_argument("--turns", type=count, default=6, help="of a run that edit, evenly spaced")
    parser.add_argument("--tokens", type=count, default=8, help="answered at each")
    parser.add_argument("--engines", type=named, default=list(ENGINES), help=",".join(ENGINES))
    parser.add_argument("--threads", type=count, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out")
    options = parser.parse_args()
    skipped = [why for name in options.engines if (why := missing(name))]
    print("\n".join(skipped))
    engines = [name for name in options.engines if not missing(name)]
    rows: dict[str, list[dict[str, Any]]] = {}
    for engine in engines:  # one at a time: nothing is timed, and memory is dear
        with tempfile.TemporaryDirectory() as scratch:
            setup = Setup(DEFAULT, options.threads, 8192, 1, Path(scratch))
            with peers([(engine, True)], setup) as held:
                for mode in MODES:
                    name = f"{engine} {mode}"
                    rows[name] = compared(held[engine, True], mode, options.files, options)
                    print(f"{name}: {len(rows[name])} turns were spliced", flush=True)
    found: dict[str, Any] = {}
    for mode in MODES:  # an arm that spliced nothing has said so above
        told = {name: own for name, own in rows.items() if name.endswith(mode) and own}
        if told:
            found |= {name: figures_of(own) for name, own in shared(told).items()}
    print(table(found))
    asked = {"files": [shown(f) for f in options.files], "policy": options.policy}
    asked |= {"runs": options.runs, "turns": options.turns, "tokens": options.tokens}
    save(options.out, "engine_fidelity", {"model": DEFAULT, **asked, "found": found})


if __name__ == "__main__":
    main()
