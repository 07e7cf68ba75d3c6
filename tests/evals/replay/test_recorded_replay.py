"""A few recorded runs, counted with the embedded model's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import replay
from leyline_evals.replay.workload import Workload

FILES = [
    "mini_swe_agent_pr_816",
    "openhands_llm_completions",
    "swe_agent_demos",
    "tau_bench_gpt_4o_airline",
]


@pytest.fixture(scope="module")
def engines(embedded_gguf: Path) -> Engines:
    return Engines.load(str(embedded_gguf), tokens_only=True)


@pytest.mark.model
@pytest.mark.parametrize("name", FILES)
def test_keep_last_five(trajectories_dir: Path, engines: Engines, name: str) -> None:
    path = trajectories_dir / "trajectories" / f"{name}.jsonl.gz"
    config = Config(policy="keep_last:n=5", model=engines.name, tokens_only=True)
    report = replay(Workload([path], limit=2), config, engines).report
    assert len(report.runs) == 2
    assert report.problems == []
    arms = report.arms
    # Without a session, replies are tokenized anew, which may split them otherwise.
    forget = arms[Arm.FORGET].compute_tokens
    assert forget <= arms[Arm.PREFIX_CACHE].compute_tokens <= 1.005 * forget
    assert all(set(run.turns_done.values()) == {run.turns} for run in report.runs)
    assert all(list(run.turns_done) == list(ALL_ARMS) for run in report.runs)
    amortize, repair = arms[Arm.AMORTIZE], arms[Arm.REPAIR]
    assert amortize.compute_ratio is not None
    if amortize.edits:
        assert amortize.compute_ratio <= 1.06
        assert amortize.compute_tokens <= repair.compute_tokens <= arms[Arm.FORGET].compute_tokens
