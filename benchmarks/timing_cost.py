"""What a provider charges for edited runs, by when the edits are made: the table of docs/timing.md.

    python benchmarks/timing_cost.py $LEYLINE_TRAJECTORIES/trajectories/swe_agent_demos.jsonl.gz

Recorded runs are played to a provider with an exact prefix cache that keeps everything. Prompt
tokens that it has in its cache cost `read`, the others `write`, in uncached tokens.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from common import save

from leyline_adapters.bundled.body import as_body
from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent.policy import parse
from leyline_agent.receipt import Receipt
from leyline_agent.serving.models.embedded import DEFAULT
from leyline_agent.serving.wire import ChatRequest
from leyline_agent.session import Session
from leyline_agent.timing.costs import ANTHROPIC, Prices
from leyline_agent.timing.timing import Timing
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.workload import Run, Workload

POLICIES = (
    "keep_last:n=10",
    "keep_last:n=10,polling=10",
    "keep_last:n=5",
    "stale_reads",
    "truncate_older_than",
    "drop_failed_calls",
)


def play(run: Run, policy: str | None, timing: Timing | None, engines: Engines) -> Counter[str]:
    """One run: tokens of its prompts, those prefilled, edits, and calls that made any."""
    service = engines.counting()
    chosen = parse(policy) if policy else None
    session = Session(chosen, OpenAICompatibleAdapter(), timing=timing)
    tools = list(run.recording.tools) or None
    made: Counter[str] = Counter()
    for index in run.turns:
        turn = session.begin(run.prompt(index), tools)
        reply = run.recording.messages[index]
        request = ChatRequest.model_validate(as_body(turn.request, stream=False))
        receipt, _ = service.recorded(request, reply)
        turn.finish(_answer(reply, receipt))
        made.update(
            prompt=receipt.prompt,
            prefilled=receipt.compute,
            edits=len(turn.edits),
            batches=bool(turn.edits),
            turns=1,
        )
    return made


def _answer(reply: dict[str, Any], receipt: Receipt) -> dict[str, Any]:
    usage = {
        "prompt_tokens": receipt.prompt,
        "prompt_tokens_details": {"cached_tokens": receipt.reused},
    }
    return {"choices": [{"index": 0, "message": reply}], "usage": usage}


def cost(made: Counter[str], prices: Prices) -> float:
    """What all prompts together cost."""
    read = made["prompt"] - made["prefilled"]
    return prices.read * read + prices.write * made["prefilled"]


def row(policy: str, when: str, made: dict[str, Any], base: float) -> str:
    """One line of a Markdown table, in thousands of tokens."""
    figures = " | ".join(f"{made[key] / 1e3:,.0f}" for key in ("prompt", "prefilled", "cost"))
    counts = f"{made['edits']:,} | {made['batches']:,}"
    return f"| {policy} | {when} | {figures} | {made['cost'] / base:.2f} | {counts} |"


def main() -> None:
    """Count, print the table, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--policy", action="append", help="only these; may be given several times")
    parser.add_argument("--limit", type=int, help="at most this many runs")
    parser.add_argument("--read", type=float, default=ANTHROPIC.read)
    parser.add_argument("--write", type=float, default=ANTHROPIC.write)
    parser.add_argument("--pays-within", type=int, default=12)
    parser.add_argument("--out")
    options = parser.parse_args()

    engines = Engines.load(DEFAULT, tokens_only=True)
    prices = Prices(read=options.read, write=options.write)
    # The recordings tell no times; the clock stands still.
    auto = Timing(prices=prices, pays_within=options.pays_within, clock=lambda: 0.0)
    arms = [("", "append-only", None)]
    for policy in options.policy or POLICIES:
        arms += [(policy, "now", None), (policy, "auto", auto)]
    found: list[dict[str, Any]] = []
    for policy, when, timing in arms:
        total: Counter[str] = Counter()
        for run in Workload(options.files, options.limit):
            total.update(play(run, policy or None, timing, engines))
        made = {"policy": policy, "when": when, **total, "cost": round(cost(total, prices))}
        found.append(made)
        print(row(f"`{policy}`" if policy else "", when, made, found[0]["cost"]), flush=True)
    for now, then in zip(found[1::2], found[2::2], strict=True):
        assert now["edits"] > 0, f"{now['policy']} edited nothing; there is nothing to compare"
        assert then["prefilled"] <= now["prefilled"], then
    files = [file.name for file in options.files]
    told = {"files": files, "limit": options.limit, "pays_within": options.pays_within}
    save(
        options.out,
        "timing_cost",
        {**told, "read": prices.read, "write": prices.write, "arms": found},
    )


if __name__ == "__main__":
    main()
