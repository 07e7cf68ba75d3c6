"""Arms: written as text, and which tokens they compute again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode
from leyline_agent.serving.repair import RepairConfig, choose_repair
from leyline_evals.fidelity.arms import ARMS, parse_arms
from leyline_evals.fidelity.cases import Case, Kind, Order
from leyline_evals.fidelity.errors import FidelityError

NEWEST = 30


def case_of(tokens: list[int], *directives: Directive) -> Case:
    held = {Order.EDIT_FIRST: len(tokens) - NEWEST, Order.EDIT_LAST: len(tokens) - 2}
    return Case("k", "c", Kind.STUB, tuple(tokens), directives, held, (1,))


TWO = case_of(list(range(300)), Directive(20, 60, (7, 7)), Directive(100, 150))


def positions(text: str, case: Case = TWO, order: Order = Order.EDIT_FIRST) -> frozenset[int]:
    [arm] = parse_arms([text])
    return arm.positions(case, order, frozenset({200}), lambda: [250, 249, 100, 99, 50])


def test_every_name_can_be_parsed() -> None:
    assert [arm.name for arm in parse_arms(list(ARMS))] == list(ARMS)


def test_repair_is_the_engines_default() -> None:
    [arm] = parse_arms(["repair"])
    assert arm.budgets == RepairConfig()


def test_a_window_is_of_each_run() -> None:
    assert positions("window=2") == {22, 23, 62, 63}


def test_nothing_is_computed_again_by_amortize() -> None:
    assert positions("amortize") == positions("unrotated") == frozenset()


def test_delimiters_are_looked_for_in_the_unedited_prompt() -> None:
    assert positions("delimiter=2") == {200 - 88, 201 - 88}


def test_an_even_budget_is_spent_at_the_boundaries() -> None:
    assert positions("boundary:delimiter=2") == {22, 62}
    assert len(positions("boundary:window=9,tail=100")) == len(positions("window=9,tail=100"))


def test_an_even_budget_is_spent_where_values_deviate() -> None:
    assert positions("blend:delimiter=2") == {250, 249}


def test_new_text_counts_towards_the_tail() -> None:
    assert len(positions("tail=40")) == 40 - NEWEST
    assert len(positions("tail=40", order=Order.EDIT_LAST)) == 38


@pytest.mark.parametrize(
    "text", ["nothing", "window", "window=-1", "middle:window=2", "ngram=0", "windows=3"]
)
def test_what_is_no_arm_is_told(text: str) -> None:
    with pytest.raises(FidelityError, match=r"repair set|no arm|ngram"):
        parse_arms([text])


def test_no_arm_at_all_is_told() -> None:
    with pytest.raises(FidelityError, match="no arm is named"):
        parse_arms([])


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 5), min_size=120, max_size=200),
    st.integers(0, 20),
    st.integers(0, 40),
    st.integers(0, 40),
)
def test_a_set_is_what_the_engine_chooses(
    tokens: list[int], window: int, echo: int, tail: int
) -> None:
    case = case_of(tokens, Directive(10, 40, (1,)), Directive(60, 70, ()))
    for order in Order:
        held = case.held[order]
        repairing = [d._replace(mode=Mode.REPAIR) for d in case.directives]
        config = RepairConfig(window=window, max_echo=echo, tail=tail)
        expected = choose_repair(tokens[:held], repairing, len(tokens) - held, config)
        text = f"window={window},echo={echo},tail={tail}"
        assert positions(text, case, order) == expected.positions
        even = positions(f"boundary:{text}", case, order)
        assert len(even) == len(expected.positions)
        assert all(case.start <= position for position in even)
