"""What every built-in policy costs on recorded runs, as the table of docs/policies.md.

    python benchmarks/policies.py $LEYLINE_TRAJECTORIES/trajectories/mini_swe_agent_pr_816.jsonl.gz

One `leyline replay --tokens-only` a policy, in three arms, and one of the history as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import save

from leyline_agent.directive import Mode
from leyline_agent.policy import parse
from leyline_agent.serving.models.embedded import DEFAULT
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import replay
from leyline_evals.replay.workload import Workload

POLICIES = (
    "keep_all",
    "truncate_older_than",
    "keep_last:n=10",
    "keep_last:n=10,polling=10",
    "clear_tool_uses:trigger=8000",
    "clear_tool_uses:trigger=8000,clear_at_least=4000",
    "stale_reads",
    "stale_file",
    "superseded",
    "drop_failed_calls",
    "drop_failed_calls:after=20,polling=5",
    "dedupe",
    "dedupe:keep=last",
    "cap_at_ingestion:max_chars=4000",
    "budget:trigger=16000,target=8000,clear_at_least=2000",
    "pinned:errors=true,policy=(keep_last)",
    "when:condition=tokens>=16000,policy=(keep_last:n=10,polling=10)",
    "pivot_trim",
    "erratum:fields=Current working directory",
    "dedupe+drop_failed_calls:after=20,polling=5+cap_at_ingestion:max_chars=4000",
)


def cost(policy: str, workload: Workload, engines: Engines, jobs: int) -> dict[str, Any]:
    """Tokens of all prompts, tokens computed in each arm, and edits."""
    config = Config(policy=policy, model=DEFAULT, tokens_only=True)
    # A correction is forgotten in earnest: no arm may ask for less.
    forgets = parse(policy).mode is Mode.FORGET
    splicing = (Arm.FORGET,) if forgets else (Arm.REPAIR, Arm.AMORTIZE)
    arms = (Arm.PREFIX_CACHE, *splicing)
    report = replay(workload, config, engines, arms=arms, jobs=jobs).report
    figures = report.arms
    return {
        "prompt_tokens": figures[arms[0]].prompt_tokens,
        "edits": figures[arms[-1]].edits,
        "compute_tokens": {arm.value: figures[arm].compute_tokens for arm in arms},
        "turns": figures[arms[0]].turns,
        "runs": len(report.runs),
        "problems": report.problems,
    }


def row(policy: str, made: dict[str, Any]) -> str:
    """One line of a Markdown table, in thousands of tokens."""
    computed = made["compute_tokens"]
    forgotten = computed.get("forget")
    cells = [
        made["prompt_tokens"],
        computed["prefix_cache"],
        computed.get("repair", forgotten),
        computed.get("amortize", forgotten),
    ]
    thousands = " | ".join(f"{cell / 1e3:,.0f}" for cell in cells)
    return f"| `{policy}` | {thousands} | {made['edits']:,} |"


def main() -> None:
    """Count, print the table, and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--policy", action="append", help="only these; may be given several times")
    parser.add_argument("--limit", type=int, help="at most this many runs")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out")
    options = parser.parse_args()

    engines = Engines.load(DEFAULT, tokens_only=True)
    made = {}
    for policy in options.policy or POLICIES:
        workload = Workload(options.files, options.limit)
        made[policy] = cost(policy, workload, engines, options.jobs)
        print(row(policy, made[policy]), flush=True)
    files = [file.name for file in options.files]
    save(options.out, "policies", {"files": files, "limit": options.limit, "policies": made})


if __name__ == "__main__":
    main()
