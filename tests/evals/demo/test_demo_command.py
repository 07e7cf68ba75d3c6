"""`leyline demo` on the real embedded model, cut short."""

from __future__ import annotations

from pathlib import Path

import pytest

from leyline_evals.demo.command import ARMS, INTRODUCTION, POLICY, TURNS, demo
from leyline_evals.demo.record import RECORDING
from leyline_evals.replay import html, words
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import replay
from leyline_evals.replay.workload import Workload


@pytest.mark.slow  # A minute of model; `make demo` runs all of it.
@pytest.mark.model
@pytest.mark.usefixtures("embedded_gguf")
def test_the_first_edits_of_the_demo() -> None:
    played = demo(turns=7)
    arms = played.report.arms
    assert tuple(arms) == ARMS
    assert arms[Arm.AMORTIZE].spliced_tokens > 0
    assert arms[Arm.REPAIR].recomputed_tokens > 0
    assert arms[Arm.AMORTIZE].compute_tokens < arms[Arm.PREFIX_CACHE].compute_tokens
    sooner = arms[Arm.AMORTIZE].sooner
    assert sooner is not None
    assert sooner.n == 2
    assert sooner.p50 > 1
    assert played.report.problems == []
    assert len(words.seen(played.report)) == 2
    assert "Time to the first token" in html.page(played)


@pytest.mark.model
def test_the_whole_demo_counted(embedded_gguf: Path) -> None:
    config = Config(policy=POLICY, model=str(embedded_gguf), tokens_only=True, max_turns=TURNS)
    engines = Engines.load(config.model, tokens_only=True)
    report = replay(Workload([RECORDING]), config, engines, arms=ARMS).report
    amortize, rival = report.arms[Arm.AMORTIZE], report.arms[Arm.PREFIX_CACHE]
    assert amortize.turns == TURNS
    assert amortize.compute_ratio is not None
    assert amortize.compute_ratio <= 1.06
    assert rival.compute_tokens > 2.5 * amortize.compute_tokens
    assert amortize.turns_with_edits >= 8
    assert f"{TURNS} calls of the model" in INTRODUCTION
