"""The bench measures what an engine serves."""

from __future__ import annotations

import pytest
import torch

from leyline_agent.directive import Mode
from leyline_agent.errors import EngineError
from leyline_agent.lowering import Lowered
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.modes import ModeRules
from leyline_evals.fidelity.arms import Arm, parse_arms
from leyline_evals.fidelity.bench import Bench, Line
from leyline_evals.fidelity.cases import Case, Order

NO_GATE = EngineConfig(kv_bytes=16 << 20, rules=ModeRules(gate_tokens=0, gate_share=2.0))


def served(model: LoadedModel, case: Case, order: Order, mode: Mode) -> tuple[torch.Tensor, int]:
    """What an engine says behind the edit, and how many tokens it computed again."""
    engine = Engine.of(model, NO_GATE)
    held = list(case.unedited[: case.held[order]])
    base = engine.start(Prompt(held, "base")).finish()
    items = [Lowered(d._replace(mode=mode), (i,), mode) for i, d in enumerate(case.directives)]
    appended = len(case.unedited) - len(held)
    run = engine.start(Prompt(case.edited, "other", base, items, appended, version=2))
    assert isinstance(run.logits, torch.Tensor)
    return run.logits, run.receipt.recomputed


def measured(bench: Bench, case: Case, order: Order, arm: Arm) -> Line:
    base = bench.prefill(case.unedited[: case.held[Order.EDIT_LAST]])
    positions = arm.positions(case, order, frozenset(), list)
    line = bench.splice(base, case, order, positions, rotate=arm.how != "unrotated")
    bench.compute([line])
    return line


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize(("name", "mode"), [("amortize", Mode.AMORTIZE), ("repair", Mode.REPAIR)])
def test_an_arm_says_what_the_engine_says(
    tiny_model: LoadedModel, bench: Bench, cases: list[Case], order: Order, name: str, mode: Mode
) -> None:
    [arm] = parse_arms([name])
    for case in cases[:2]:
        line = measured(bench, case, order, arm)
        expected, recomputed = served(tiny_model, case, order, mode)
        assert line.logits is not None
        torch.testing.assert_close(line.logits, expected, atol=1e-4, rtol=1e-4)
        assert line.recomputed == recomputed
        bench.release([line])


def test_forget_is_a_plain_prefill(bench: Bench, cases: list[Case]) -> None:
    case = cases[0]
    base = bench.prefill(case.unedited)
    line = bench.extend(base.fork(case.start), case.edited[case.start :])
    bench.compute([line], chunk=37)
    [found] = bench.score([line], case.continuation)
    bench.release([line])
    plain = bench.extend(bench.prefill(case.edited).fork(1), case.edited[1:])
    bench.compute([plain])
    [expected] = bench.score([plain], case.continuation)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    bench.release([plain])


def test_keys_that_are_not_moved_say_something_else(bench: Bench, cases: list[Case]) -> None:
    moved, still = (
        measured(bench, cases[0], Order.EDIT_FIRST, arm)
        for arm in parse_arms(["amortize", "unrotated"])
    )
    assert moved.logits is not None
    assert still.logits is not None
    assert float((moved.logits - still.logits).abs().max()) > 1e-3
    bench.release([moved, still])


def test_scores_are_of_each_token_and_leave_the_line(bench: Bench, cases: list[Case]) -> None:
    line = measured(bench, cases[0], Order.EDIT_FIRST, parse_arms(["amortize"])[0])
    before = len(line.sequence)
    [together] = bench.score([line], [5, 6, 7])
    assert len(line.sequence) == before
    assert line.logits is not None
    torch.testing.assert_close(together[0], line.logits)
    further = bench.extend(line.sequence, [5])
    bench.compute([further])
    assert further.logits is not None
    torch.testing.assert_close(together[1], further.logits, atol=1e-4, rtol=1e-4)
    bench.release([line])


def test_following_is_as_good_as_saying_anew(bench: Bench, cases: list[Case]) -> None:
    case = cases[0]
    arms = parse_arms(["amortize", "unrotated"])
    lines = [measured(bench, case, Order.EDIT_FIRST, arm) for arm in arms]
    alone = [bench.greedy([line], [8], frozenset())[0] for line in lines]
    assert bench.greedy(lines, [8, 8], frozenset()) == alone
    assert alone[0] != alone[1]
    assert bench.follow(lines, alone[0], 8, frozenset()) == alone
    assert bench.follow(lines, alone[1], 8, frozenset()) == alone
    stop = frozenset({alone[0][2]})
    until = alone[0][: alone[0].index(alone[0][2]) + 1]
    assert bench.greedy(lines[:1], [8], stop) == [until]
    assert bench.follow(lines[:1], until, 8, stop) == [until]
    assert bench.greedy(lines, [0, 2], frozenset()) == [[], alone[1][:2]]
    bench.release(lines)


def test_deviations_rank_kept_tokens_alone(bench: Bench, cases: list[Case]) -> None:
    case = cases[0]
    base = bench.prefill(case.unedited[: case.held[Order.EDIT_LAST]])
    honest = bench.extend(base.fork(case.start), case.edited[case.start :])
    bench.compute([honest])
    line = bench.splice(base, case, Order.EDIT_FIRST)
    ranked = bench.deviations(line, honest.sequence)
    assert len(ranked) == case.suffix
    assert not set(ranked) & set(line.pending.tolist())
    assert min(ranked) >= case.start
    bench.release([line, honest])


def test_a_bench_needs_a_model() -> None:
    with pytest.raises(EngineError, match="no model runs"):
        Bench(Engine.counting())
