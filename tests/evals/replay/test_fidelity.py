"""Nearness to an honest re-prefill, with a tiny real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from leyline_agent.errors import EngineError
from leyline_agent.policy import parse
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.fidelity import Judge, evenly, nearness
from leyline_evals.replay.play import play
from leyline_evals.replay.records import FidelityRow
from leyline_evals.replay.workload import Workload

POLICY = parse("truncate_older_than:n=2,max_chars=20")


def test_nearness_of_the_same_is_nothing() -> None:
    logits = torch.randn(100, 50)
    found = nearness(torch.log_softmax(logits, -1), logits + 3.0)
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.top1 == 1.0


def test_nearness_is_a_mean_over_tokens() -> None:
    honest = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    other = torch.log(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    first = 0.5 * (torch.log(torch.tensor(2.0)) + torch.log(torch.tensor(0.5 / 0.75)))
    assert nearness(honest, other).kl == pytest.approx(float(first) / 2, rel=1e-5)
    flipped = torch.log(torch.tensor([[0.5, 0.5], [0.1, 0.9]]))
    assert nearness(honest, flipped).top1 == 0.5


def test_other_replies_cannot_be_compared() -> None:
    with pytest.raises(EngineError, match="cannot be compared"):
        nearness(torch.zeros(3, 5), torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [4]), (2, [0, 8]), (3, [0, 4, 8]), (9, list(range(9))), (20, list(range(9)))],
)
def test_evenly(count: int, expected: list[int]) -> None:
    assert evenly(list(range(9)), count) == expected


def measured(
    runs_file: Callable[..., Path], running: Engines, chars: int = 300
) -> dict[Arm, list[FidelityRow]]:
    [run] = Workload([runs_file(9, chars=chars)])
    return {p.arm: p.fidelity for p in play(run, ALL_ARMS, POLICY, running, fidelity_turns=3)}


def test_arms_are_measured_at_the_same_edited_turns(
    runs_file: Callable[..., Path], running: Engines
) -> None:
    found = measured(runs_file, running)
    assert found[Arm.APPEND_ONLY] == []
    turns = {arm: [row.turn for row in rows] for arm, rows in found.items() if arm.edits}
    assert len(set(map(tuple, turns.values()))) == 1
    assert len(turns[Arm.REPAIR]) == 3
    assert all(row.tokens > 0 for row in found[Arm.REPAIR])


def test_forget_is_honest_and_a_splice_is_not_quite(
    runs_file: Callable[..., Path], running: Engines
) -> None:
    found = measured(runs_file, running)
    for arm in (Arm.PREFIX_CACHE, Arm.FORGET):
        for row in found[arm]:
            assert row.kl < 1e-5
            assert row.top1 == 1.0
    for row in found[Arm.AMORTIZE]:
        assert row.floor_kl < 1e-5 < row.kl
        assert row.unedited_kl is not None
        assert row.unedited_kl > row.floor_kl
    amortize, repair = (sum(row.kl for row in found[arm]) for arm in (Arm.AMORTIZE, Arm.REPAIR))
    assert repair < amortize


def test_scoring_changes_no_figure(runs_file: Callable[..., Path], running: Engines) -> None:
    [run] = Workload([runs_file(7)])
    plain = play(run, ALL_ARMS, POLICY, running)
    scored = play(run, ALL_ARMS, POLICY, running, fidelity_turns=2)
    for left, right in zip(plain, scored, strict=True):
        assert [row.compute for row in left.rows] == [row.compute for row in right.rows]


def test_turns_that_do_not_fit_are_not_chosen(
    runs_file: Callable[..., Path], running: Engines, counting: Engines
) -> None:
    [run] = Workload([runs_file(16, chars=700)])
    policy = parse("keep_last:n=4")
    judge = Judge(run, run.turns, policy, running, 99)
    [played] = play(run, [Arm.AMORTIZE], policy, running, fidelity_turns=99)
    [counted] = play(run, [Arm.AMORTIZE], policy, counting)
    edited = [row for row in counted.rows if row.suffix]
    assert played.ended is not None
    assert 0 < len(judge.places) < len(edited)
    # At the last of them the prompt fits, and its reply may not.
    assert len(judge.places) - 1 <= len(played.fidelity) <= len(judge.places)


def test_where_the_whole_history_does_not_fit_there_is_no_such_control(
    runs_file: Callable[..., Path], running: Engines
) -> None:
    [run] = Workload([runs_file(14, chars=900)])
    [played] = play(run, [Arm.AMORTIZE], parse("keep_last:n=1"), running, fidelity_turns=99)
    assert played.fidelity[0].unedited_kl is not None
    assert played.fidelity[-1].unedited_kl is None
    assert played.fidelity[-1].floor_kl < 1e-5


def test_counting_engines_cannot_judge(runs_file: Callable[..., Path], counting: Engines) -> None:
    [run] = Workload([runs_file(3)])
    with pytest.raises(EngineError, match="no model runs"):
        play(run, [Arm.REPAIR], POLICY, counting, fidelity_turns=1)
