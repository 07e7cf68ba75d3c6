"""Which modes a model is fit for, by limits that are the same for every model.

The limits ask that a splice disturb predictions little, and less than not making the edit would:
then a user who wants the edit is nearer to it with the splice than without any edit at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from leyline_agent.directive import Mode
from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.report import ArmFigures, Verdict

__all__ = ["Limits", "floor_of", "verdicts"]

_ARMS = {Mode.AMORTIZE: "amortize", Mode.REPAIR: "repair"}


@dataclass(frozen=True)
class Limits:
    """What a mode has to keep to.

    Attributes:
        edits, clusters: fewest edits, and trajectories, that tell anything.
        kl: the mean KL's interval ends at or below this many nats a token.
        top1: the likeliest token agrees at least so often.
        noise: a mode whose mean KL is at most so many times the noise is fit whatever the rest.
    """

    edits: int = 20
    clusters: int = 8
    kl: float = 0.03
    top1: float = 0.95
    noise: float = 2.0


DEFAULT = Limits()


def verdicts(
    arms: Mapping[Order, Mapping[str, ArmFigures]],
    controls: Mapping[str, ArmFigures],
    clusters: int,
    limits: Limits = DEFAULT,
) -> list[Verdict]:
    """A verdict a mode, weakest first; an order in which a mode fails decides."""
    found = []
    for mode, name in _ARMS.items():
        measured = {order: own[name] for order, own in arms.items() if name in own}
        why = [
            f"{order.value}: {reason}"
            for order, one in measured.items()
            for reason in _against(one, controls, clusters, limits)
        ]
        if not measured:
            why = [f"the arm {name} was not measured"]
        found.append(Verdict(mode=mode, fit=not why, why=why or _for(measured)))
    return [*found, Verdict(mode=Mode.FORGET, fit=True, why=["it computes the suffix anew"])]


def floor_of(found: list[Verdict]) -> Mode:
    """The weakest mode the model is fit for."""
    return next(one.mode for one in found if one.fit)


def _against(
    one: ArmFigures, controls: Mapping[str, ArmFigures], clusters: int, limits: Limits
) -> list[str]:
    if one.edits < limits.edits or clusters < limits.clusters:
        return [
            f"too few to tell: {one.edits} edit{'' if one.edits == 1 else 's'} of {clusters} "
            f"trajector{'y' if clusters == 1 else 'ies'}; "
            f"{limits.edits} of {limits.clusters} would do"
        ]
    noise, unedited = controls["noise"], controls["unedited"]
    if one.kl_mean <= limits.noise * noise.kl_mean:
        return []
    why = []
    if one.kl_high > limits.kl:
        why.append(
            f"mean KL {one.kl_mean:.4f} may be as high as {one.kl_high:.4f}; the limit is "
            f"{limits.kl:g}"
        )
    if one.top1 < limits.top1:
        why.append(f"the likeliest token agrees in {one.top1:.1%}; the limit is {limits.top1:.0%}")
    if one.kl_mean > unedited.kl_mean:
        why.append(
            f"mean KL {one.kl_mean:.4f} is more than that of no edit at all, {unedited.kl_mean:.4f}"
        )
    return why


def _for(measured: Mapping[Order, ArmFigures]) -> list[str]:
    return [
        f"{order.value}: mean KL {one.kl_mean:.4f}, likeliest token agrees in {one.top1:.1%}"
        for order, one in measured.items()
    ]
