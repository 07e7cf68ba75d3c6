"""From rows to figures."""

from __future__ import annotations

from typing import Any

import pytest

from leyline_agent.receipt import Reason
from leyline_evals.replay import totals
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.records import ArmRun, Ended, FidelityRow, TurnRow


def row(turn: int, prompt: int, prefilled: int, **more: Any) -> TurnRow:
    spliced, recomputed = more.get("spliced", 0), more.get("recomputed", 0)
    exact = prompt - prefilled - spliced - recomputed
    return TurnRow(turn=turn, prompt=prompt, prefilled=prefilled, exact=exact, **more)


def run(arm: Arm, rows: list[TurnRow], turns: int = 2, **more: Any) -> ArmRun:
    known = {"file": "f", "number": 0, "id": "r", "format": "x", "messages": 9}
    return ArmRun(**known, arm=arm, turns=turns, rows=rows, **more)


def one_run(**arms: list[TurnRow]) -> dict[Arm, ArmRun]:
    return {Arm(name): run(Arm(name), rows) for name, rows in arms.items()}


RESULTS = [
    one_run(
        append_only=[row(1, 100, 100, ttft_ms=10), row(2, 150, 50, ttft_ms=8)],
        prefix_cache=[row(1, 100, 100, ttft_ms=10), row(2, 120, 90, edits=2, ttft_ms=9)],
        amortize=[
            row(1, 100, 100, ttft_ms=5),
            row(
                2, 120, 20, edits=2, spliced=70, suffix=70, ttft_ms=3, splice_us=40, copy_us=7,
                reasons={"asked": 1}, modes={"amortize": 1},
            ),
        ],
    )
]  # fmt: skip


def test_figures() -> None:
    made = totals.figures(RESULTS)
    amortize = made[Arm.AMORTIZE]
    assert amortize.prompt_tokens == 220
    assert amortize.reused_tokens == amortize.exact_tokens + amortize.spliced_tokens == 100
    assert amortize.compute_tokens == amortize.prefilled_tokens == 120
    assert amortize.hit_rate == round(100 / 220, 4)
    assert amortize.compute_ratio == 0.8
    assert made[Arm.PREFIX_CACHE].compute_ratio == round(190 / 150, 4)
    assert (amortize.edits, amortize.turns_with_edits) == (2, 1)
    assert amortize.reasons == {Reason.ASKED: 1}
    assert amortize.splice_us is not None
    assert (amortize.splice_us.p50, amortize.splice_us.n) == (40, 1)
    assert amortize.copy_us is not None
    assert made[Arm.APPEND_ONLY].splice_us is None


def test_times_are_compared_turn_by_turn() -> None:
    made = totals.figures(RESULTS)
    edited = made[Arm.APPEND_ONLY].ttft_after_edit_ms
    assert edited is not None
    assert (edited.p50, edited.n) == (8, 1)  # the same turns in every arm
    sooner, quiet = made[Arm.AMORTIZE].sooner, made[Arm.AMORTIZE].sooner_without_edit
    assert sooner is not None
    assert quiet is not None
    assert (sooner.p50, quiet.p50) == (3, 2)
    assert made[Arm.PREFIX_CACHE].sooner is None


def test_only_turns_that_every_arm_did_are_counted() -> None:
    short = one_run(append_only=[row(1, 100, 100)], amortize=[row(1, 100, 100), row(2, 120, 20)])
    ended = Ended(kind="ContextOverflow", detail="too long")
    short[Arm.APPEND_ONLY] = run(Arm.APPEND_ONLY, [row(1, 100, 100)], ended=ended)
    made = totals.figures([short])
    assert made[Arm.AMORTIZE].turns == made[Arm.APPEND_ONLY].turns == 1
    assert made[Arm.AMORTIZE].compute_ratio == 1.0
    summary = totals.summary(short)
    assert summary.turns_done == {Arm.APPEND_ONLY: 1, Arm.AMORTIZE: 2}
    assert summary.ended == {Arm.APPEND_ONLY: ended}
    said = totals.notes([short], made)
    assert "append_only: 1 of 1 runs outgrew the model's context" in said
    assert "the figures are of the 1 turns that every arm did, of 2" in said


def test_a_policy_that_edits_nothing_is_noted() -> None:
    quiet = [one_run(append_only=[row(1, 5, 5)], amortize=[row(1, 5, 5)])]
    made = totals.figures(quiet)
    assert "the policy edited nothing in these runs" in totals.notes(quiet, made)
    assert totals.problems(quiet, made) == []
    assert totals.notes(RESULTS, totals.figures(RESULTS)) == []


@pytest.mark.parametrize(
    ("reasons", "problem"),
    [
        ({"asked": 2}, True),
        ({"layer_kind": 2}, True),
        ({"evicted": 1, "no_suffix": 1}, True),
        ({"no_suffix": 2}, False),
        ({"cost_gate": 1, "undeclared": 1}, False),
        ({"unseen": 2}, False),
        ({}, False),
    ],
)
def test_an_arm_that_spliced_nothing_is_a_problem(reasons: dict[str, int], problem: bool) -> None:
    rows = [row(1, 50, 50, edits=2, reasons=reasons)]
    results = [one_run(append_only=[row(1, 50, 50)], repair=rows)]
    found = totals.problems(results, totals.figures(results))
    assert bool(found) is problem
    if problem:
        assert "repair spliced nothing" in found[0]
        assert all(f"{name} {count}" in found[0] for name, count in reasons.items())


def test_forget_need_not_splice() -> None:
    results = [one_run(forget=[row(1, 50, 50, edits=1, reasons={"asked": 1})])]
    made = totals.figures(results)
    assert totals.problems(results, made) == []
    assert made[Arm.FORGET].compute_ratio is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([5.0], (5, 5, 5, 5)), ([1.0, 2.0], (1.25, 1.5, 1.75, 1.99)), (range(101), (25, 50, 75, 99))],
)
def test_spread(values: Any, expected: tuple[float, ...]) -> None:
    found = totals.spread(values)
    assert found is not None
    assert (found.p25, found.p50, found.p75, found.p99) == expected
    assert found.n == len(values)


def test_spread_of_nothing() -> None:
    assert totals.spread([]) is None


def near(turn: int, kl: float, tokens: int = 10, undone: float | None = 0.5) -> FidelityRow:
    return FidelityRow(
        turn=turn, tokens=tokens, kl=kl, top1=1.0, floor_kl=0.1, floor_top1=1.0,
        unedited_kl=undone, unedited_top1=None if undone is None else 0.5,
    )  # fmt: skip


def test_fidelity_counts_the_controls_once() -> None:
    both = {
        Arm.AMORTIZE: run(Arm.AMORTIZE, [], fidelity=[near(1, 0.2), near(2, 0.4, undone=None)]),
        Arm.REPAIR: run(Arm.REPAIR, [], fidelity=[near(1, 0.1), near(2, 0.2, undone=None)]),
    }
    found = totals.fidelity([both, {Arm.AMORTIZE: run(Arm.AMORTIZE, [], fidelity=[near(1, 0.9)])}])
    assert found is not None
    assert {name: one.turns for name, one in found.items()} == {
        "amortize": 3,
        "repair": 2,
        "noise_floor": 3,
        "edit_undone": 2,
    }
    assert found["amortize"].kl.p50 == 0.4
    assert found["amortize"].kl_max == 0.9
    assert found["edit_undone"].top1 == 0.5


def test_top1_weighs_tokens() -> None:
    rows = [near(1, 0.1, tokens=30), near(2, 0.1, tokens=10).model_copy(update={"top1": 0.0})]
    found = totals.fidelity([{Arm.REPAIR: run(Arm.REPAIR, [], fidelity=rows)}])
    assert found is not None
    assert found["repair"].top1 == 0.75


def test_no_fidelity_where_none_was_measured() -> None:
    assert totals.fidelity(RESULTS) is None


def test_small_values_keep_their_digits() -> None:
    found = totals.spread([0.001572, 0.001572])
    assert found is not None
    assert found.p50 == 0.001572
