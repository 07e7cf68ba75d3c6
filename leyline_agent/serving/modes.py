"""Modes: how strongly each directive is carried out, and the one reason why.

The mode used is the strongest of what the edit asks, the operator's floor, what the model was
found fit for and what the engine can do. The cost gate may only strengthen, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from leyline_agent.directive import Directive, Mode, kept_runs
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Reason
from leyline_agent.serving.repair import Repair, RepairConfig, choose_repair

__all__ = ["Facts", "ModeRules", "Settled", "kept_behind", "settle"]


class Facts(Protocol):
    """What of a model decides whether its cached keys may be moved."""

    @property
    def refusal(self) -> Reason | None:
        """Why not; None when they may."""
        ...


@dataclass(frozen=True)
class ModeRules:
    """What may strengthen a mode.

    Attributes:
        floor: the operator's floor.
        fidelity_floor: what the model was found fit for; None when not measured.
        gate_tokens: with fewer kept tokens behind an edit, recomputing them is as cheap.
        gate_share: a REPAIR of more than this share of the suffix becomes FORGET.
    """

    floor: Mode = Mode.AMORTIZE
    fidelity_floor: Mode | None = None
    gate_tokens: int = 16
    gate_share: float = 0.75


@dataclass(frozen=True)
class Settled:
    """The directives as they will be carried out, and what REPAIR recomputes."""

    items: tuple[Lowered, ...]
    repair: Repair

    @property
    def directives(self) -> tuple[Directive, ...]:
        """The directives alone."""
        return tuple(item.directive for item in self.items)


def settle(
    previous: Sequence[int],
    items: Sequence[Lowered],
    appended: int,
    facts: Facts,
    rules: ModeRules,
    repair: RepairConfig,
) -> Settled:
    """Settle the modes of a lowering's directives on a sequence of tokens."""
    chosen = [_floored(item, facts, rules) for item in items]
    chosen = _behind_forget(_gate(chosen, len(previous), rules))
    plan = choose_repair(previous, [item.directive for item in chosen], appended, repair)
    first = next((i for i, item in enumerate(chosen) if _mode(item) is Mode.REPAIR), None)
    if first is not None:
        suffix = kept_behind(chosen, first, len(previous))
        if len(plan.positions) > rules.gate_share * suffix:
            chosen[first] = _with(chosen[first], Mode.FORGET, Reason.COST_GATE)
            chosen = _behind_forget(chosen)
            plan = Repair()
    return Settled(tuple(chosen), plan)


def _mode(item: Lowered) -> Mode:
    return item.directive.mode


def _with(item: Lowered, mode: Mode, reason: Reason) -> Lowered:
    return replace(item, directive=item.directive._replace(mode=mode), reason=reason)


def _floored(item: Lowered, facts: Facts, rules: ModeRules) -> Lowered:
    floors = (
        (Mode.FORGET if facts.refusal else None, facts.refusal),
        (rules.floor, Reason.USER_FLOOR),
        (rules.fidelity_floor, Reason.FIDELITY_FLOOR),
    )
    for floor, reason in floors:
        if floor is not None and reason is not None and floor.strength > _mode(item).strength:
            item = _with(item, floor, reason)
    return item


def _gate(items: list[Lowered], length: int, rules: ModeRules) -> list[Lowered]:
    """Where next to nothing is kept behind an edit, compute it: cheaper, and stronger."""
    result = list(items)
    for index, item in enumerate(result):
        if _mode(item) is Mode.FORGET:
            break
        suffix = kept_behind(result, index, length)
        if suffix == 0:
            # Nothing is reused behind this edit, so any mode is carried out to the letter.
            result[index] = replace(item, reason=Reason.NO_SUFFIX)
        elif suffix <= rules.gate_tokens:
            result[index] = _with(item, Mode.FORGET, Reason.COST_GATE)
    return result


def kept_behind(items: Sequence[Lowered], index: int, length: int) -> int:
    """Kept tokens behind item `index`, up to the next FORGET; 0 behind a FORGET."""
    if _mode(items[index]) is Mode.FORGET:
        return 0
    stop = next((i.directive.start for i in items[index + 1 :] if _mode(i) is Mode.FORGET), length)
    start = items[index].directive.end
    directives = [item.directive for item in items]
    return sum(
        max(0, min(run.end, stop) - max(run.start, start))
        for run in kept_runs(directives, length)
        if run.end > start
    )


def _behind_forget(items: Sequence[Lowered]) -> list[Lowered]:
    result: list[Lowered] = []
    forgetting = False
    for item in items:
        if forgetting and _mode(item) is not Mode.FORGET:
            item = _with(item, Mode.FORGET, Reason.BEHIND_FORGET)
        forgetting = forgetting or _mode(item) is Mode.FORGET
        result.append(item)
    return result
