"""Stages: what each computes, what it reuses, and that together they make the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_adapters.vllm.client.planning import Limits, Plan, Reuse, plan
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Reason

NO_GATE = Limits(window=4, gate_tokens=0, stage_tokens=0, stages=99)


def items_of(*directives: Directive) -> list[Lowered]:
    return [Lowered(each, (index,), each.mode) for index, each in enumerate(sorted(directives))]


def planned(
    length: int, *directives: Directive, appended: int = 5, limits: Limits = NO_GATE
) -> Plan:
    prompt = len(apply(range(length), directives)) + appended
    return plan(length, items_of(*directives), prompt, limits)


@st.composite
def edits(draw: st.DrawFn) -> tuple[int, list[Directive], int]:
    """A length, directives that fit it, and how much is appended."""
    length = draw(st.integers(1, 60))
    places = draw(st.lists(st.integers(0, length), unique=True, max_size=8).map(sorted))
    found = []
    for start, end in zip(places[::2], places[1::2], strict=False):
        size = draw(st.integers(0, 4))
        mode = draw(st.sampled_from(Mode))
        found.append(Directive(start, end, tuple(range(1000 + start, 1000 + start + size)), mode))
    return length, found, draw(st.integers(0, 6))


@given(edits(), st.integers(0, 5), st.integers(0, 8), st.integers(0, 9), st.integers(0, 3))
def test_stages_make_the_prompt_and_claim_nothing_but_its_tokens(
    case: tuple[int, list[Directive], int], window: int, gate: int, stage: int, stages: int
) -> None:
    length, directives, appended = case
    tokens = [*apply(range(length), directives), *range(5000, 5000 + appended)]
    if not tokens:
        return
    limits = Limits(window, gate, stage, stages)
    found = plan(length, items_of(*directives), len(tokens), limits)
    before = 0
    for each in found.stages:
        assert each.before == before
        at = before
        for run in each.reused:
            assert run.at == at
            assert tokens[run.at : run.stop] == list(range(run.start, run.end))
            at = run.stop
        assert at < each.end
        before = each.end
    assert before == len(tokens)
    assert len(found.stages) <= stages + 1
    forget = next((i.directive.start for i in found.items if i.directive.mode is Mode.FORGET), None)
    if forget is not None:
        assert all(run.end <= forget for each in found.stages for run in each.reused)


@given(edits())
def test_what_is_kept_is_reused_or_said_to_be_computed_again(
    case: tuple[int, list[Directive], int],
) -> None:
    length, directives, appended = case
    found = planned(length, *directives, appended=appended + 1)
    kept = {at for start, end in found.kept for at in range(start, end)}
    reused = {at for each in found.stages for r in each.reused for at in range(r.at, r.stop)}
    again = [at for _, start, end in found.again for at in range(start, end)]
    assert len(set(again)) == len(again)
    assert reused | set(again) == kept
    assert not reused & set(again)


def test_a_deletion_needs_no_stage_of_its_own() -> None:
    (turn,) = planned(100, Directive(20, 40)).stages
    assert turn.reused == (Reuse(0, 20, 0), Reuse(40, 100, 20))
    assert (turn.start, turn.end) == (80, 85)


def test_a_replacement_is_computed_by_a_stage_before_the_turn() -> None:
    first, turn = planned(100, Directive(20, 40, (7, 8, 9))).stages
    assert (first.start, first.end, first.reused) == (20, 23, (Reuse(0, 20, 0),))
    assert (turn.before, turn.start, turn.end) == (23, 83, 88)
    assert turn.reused == (Reuse(40, 100, 23),)


def test_repair_computes_the_window_behind_the_replacement_with_it() -> None:
    found = planned(100, Directive(20, 40, (7,), Mode.REPAIR))
    first, turn = found.stages
    assert (first.start, first.end) == (20, 25)
    assert turn.reused == (Reuse(44, 100, 25),)
    assert found.again == (("boundary", 21, 25),)


def test_forget_claims_nothing_behind_it() -> None:
    (turn,) = planned(100, Directive(20, 40, (7,), Mode.FORGET)).stages
    assert turn.reused == (Reuse(0, 20, 0),)


@pytest.mark.parametrize(("suffix", "reason"), [(0, Reason.NO_SUFFIX), (9, Reason.COST_GATE)])
def test_next_to_nothing_behind_an_edit_is_computed(suffix: int, reason: Reason) -> None:
    found = planned(40 + suffix, Directive(20, 40, (7,)), limits=Limits(gate_tokens=9))
    assert found.items[0].reason is reason
    assert (found.items[0].directive.mode is Mode.FORGET) == (suffix > 0)
    assert len(found.stages) == 1


def test_what_stands_behind_a_gated_edit_says_why_it_is_computed() -> None:
    found = planned(60, Directive(20, 30, (7,), Mode.FORGET), Directive(40, 50))
    assert [item.reason for item in found.items] == [Reason.ASKED, Reason.BEHIND_FORGET]


def test_a_short_run_between_edits_is_computed_with_them() -> None:
    near = [Directive(20, 30, (7,)), Directive(35, 40, (8,))]
    found = planned(200, *near, limits=Limits(gate_tokens=0, stage_tokens=10))
    first, turn = found.stages
    assert (first.start, first.end) == (20, 27)
    assert found.again == (("between", 21, 26),)
    assert turn.reused == (Reuse(40, 200, 27),)


def test_too_many_stages_are_made_fewer_where_that_costs_least() -> None:
    many = [Directive(at, at + 2, (7,)) for at in (10, 30, 60, 100)]
    found = planned(300, *many, limits=Limits(gate_tokens=0, stage_tokens=0, stages=2))
    assert len(found.stages) == 3
    assert [end - start for _, start, end in found.again] == [18, 28]


def test_a_prompt_that_is_all_known_has_its_last_token_computed() -> None:
    (turn,) = planned(50, appended=0).stages
    assert turn.reused == (Reuse(0, 49, 0),)
