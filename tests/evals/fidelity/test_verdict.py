"""Which modes a model is fit for."""

from __future__ import annotations

import pytest

from leyline_agent.directive import Mode
from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.report import ArmFigures
from leyline_evals.fidelity.verdict import Limits, floor_of, verdicts

LIMITS = Limits(edits=20, clusters=8, kl=0.03, top1=0.95, noise=2.0)


def figures(kl: float, top1: float = 0.99, edits: int = 40) -> ArmFigures:
    return ArmFigures(
        edits=edits,
        kl_mean=kl,
        kl_low=kl * 0.8,
        kl_high=kl * 1.2,
        kl_median=kl,
        kl_p95=kl,
        kl_worst=kl,
        top1=top1,
    )


CONTROLS = {"noise": figures(0.001), "unedited": figures(0.1)}


def floor(amortize: ArmFigures, repair: ArmFigures, clusters: int = 20) -> Mode:
    arms = {Order.EDIT_FIRST: {"amortize": amortize, "repair": repair}}
    return floor_of(verdicts(arms, CONTROLS, clusters, LIMITS))


def test_the_weakest_fit_mode_is_the_floor() -> None:
    assert floor(figures(0.01), figures(0.005)) is Mode.AMORTIZE
    assert floor(figures(0.05), figures(0.005)) is Mode.REPAIR
    assert floor(figures(0.05), figures(0.04)) is Mode.FORGET


def test_the_interval_counts_not_the_mean() -> None:
    assert floor(figures(0.024), figures(0.026)) is Mode.AMORTIZE
    assert floor(figures(0.026), figures(0.026)) is Mode.FORGET


def test_other_tokens_count() -> None:
    assert floor(figures(0.01, top1=0.9), figures(0.01)) is Mode.REPAIR


def test_a_splice_has_to_beat_no_edit() -> None:
    arms = {Order.EDIT_FIRST: {"amortize": figures(0.02), "repair": figures(0.01)}}
    controls = {**CONTROLS, "unedited": figures(0.015)}
    found = verdicts(arms, controls, 20, LIMITS)
    assert floor_of(found) is Mode.REPAIR
    assert "more than that of no edit at all" in found[0].why[0]


def test_noise_alone_is_fit() -> None:
    assert floor(figures(0.002, top1=0.5), figures(0.002, top1=0.5)) is Mode.AMORTIZE


@pytest.mark.parametrize(("edits", "clusters"), [(19, 20), (40, 7)])
def test_few_edits_tell_nothing(edits: int, clusters: int) -> None:
    few = figures(0.001, edits=edits)
    assert floor(few, few, clusters) is Mode.FORGET


def test_the_worse_order_decides() -> None:
    arms = {
        Order.EDIT_FIRST: {"amortize": figures(0.01), "repair": figures(0.01)},
        Order.EDIT_LAST: {"amortize": figures(0.09), "repair": figures(0.01)},
    }
    found = verdicts(arms, CONTROLS, 20, LIMITS)
    assert [one.fit for one in found] == [False, True, True]
    assert found[0].why[0].startswith("edit_last: ")


def test_what_was_not_measured_is_not_fit() -> None:
    found = verdicts({Order.EDIT_FIRST: {}}, CONTROLS, 20, LIMITS)
    assert floor_of(found) is Mode.FORGET
    assert found[1].why == ["the arm repair was not measured"]
