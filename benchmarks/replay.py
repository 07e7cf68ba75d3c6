"""Counting recorded runs: runs a minute, and what each arm computes against append-only.

    python benchmarks/replay.py $LEYLINE_TRAJECTORIES/trajectories/mini_swe_agent_pr_816.jsonl.gz

The recorded runs are from SWE-agent/mini-swe-agent, pull request 816 (MIT).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import save

from leyline_agent.serving.models.embedded import DEFAULT
from leyline_evals.replay.arms import ALL_ARMS
from leyline_evals.replay.command import cores
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import replay
from leyline_evals.replay.workload import Workload


def main() -> None:
    """Count and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--policy", default="keep_last:n=5")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--jobs", type=int, default=cores())
    parser.add_argument("--out")
    options = parser.parse_args()

    config = Config(policy=options.policy, model=DEFAULT, tokens_only=True)
    engines = Engines.load(DEFAULT, tokens_only=True)
    workload = Workload(options.files, options.limit)
    report = replay(workload, config, engines, arms=ALL_ARMS, jobs=options.jobs).report
    assert report.problems == [], report.problems
    figures = {
        "policy": options.policy,
        "files": [file.name for file in options.files],
        "runs": len(report.runs),
        "turns": sum(run.turns for run in report.runs),
        "jobs": options.jobs,
        "seconds": report.seconds,
        "runs_a_minute": round(60 * len(report.runs) / report.seconds, 1),
        "skipped": len(report.skipped),
        "arms": {
            arm.value: {
                "prompt_tokens": one.prompt_tokens,
                "compute_tokens": one.compute_tokens,
                "compute_ratio": one.compute_ratio,
                "hit_rate": one.hit_rate,
            }
            for arm, one in report.arms.items()
        },
    }
    save(options.out, "replay", figures)


if __name__ == "__main__":
    main()
