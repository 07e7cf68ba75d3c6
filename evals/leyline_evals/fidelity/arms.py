"""Arms: ways to carry an edit out, and which kept tokens each computes again.

An arm is written as text, so that a search and a registered test name theirs as data:

    amortize                              nothing is computed again
    unrotated                             nor are keys moved: what positions are worth
    window=16,echo=256,tail=128           a repair set (`RepairConfig`), budgets in tokens
    boundary:window=16,echo=256           as many tokens as that set, all at the boundaries
    blend:window=16,echo=256              as many tokens, where values deviate most
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from leyline_agent.directive import Mode, kept_runs
from leyline_agent.serving.repair import RepairConfig, choose_repair
from leyline_evals.fidelity.cases import Case, Order
from leyline_evals.fidelity.errors import FidelityError

__all__ = ["ARMS", "Arm", "parse_arms"]

How = Literal["repair", "unrotated", "boundary", "blend"]

_BUDGETS = ("window", "ngram", "echo", "tail", "delimiter")
_DEFAULT = RepairConfig()
_SET = (
    f"window={_DEFAULT.window},ngram={_DEFAULT.ngram},echo={_DEFAULT.max_echo},"
    f"tail={_DEFAULT.tail},delimiter={_DEFAULT.delimiter}"
)
ARMS: dict[str, str] = {
    "unrotated": "unrotated",
    "amortize": "amortize",
    "boundary_16": "window=16",
    "boundary_64": "window=64",
    "delimiters": "window=16,delimiter=4",
    "echo": "window=16,echo=256",
    "tail": "window=16,tail=128",
    "union": "window=16,echo=256,tail=128,delimiter=4",
    "repair": _SET,
    "boundary_even": f"boundary:{_SET}",
    "blend_even": f"blend:{_SET}",
}
"""The arms of the canary; `repair` is the engine's default set."""


@dataclass(frozen=True)
class Arm:
    """One way to carry an edit out.

    Attributes:
        name: in tables.
        text: what it was parsed from.
        how: what kind it is.
        budgets: of the repair set it uses, or spends as many tokens as.
    """

    name: str
    text: str
    how: How
    budgets: RepairConfig

    def positions(
        self, case: Case, order: Order, delimiters: frozenset[int], ranked: Callable[[], list[int]]
    ) -> frozenset[int]:
        """Positions in the edited prompt to compute again although they are kept.

        Args:
            case: the edit.
            order: says what the engine held.
            delimiters: tokens at which messages begin.
            ranked: kept positions behind the edit, by how much their values deviate, most first.
        """
        if self.how == "unrotated":
            return frozenset()
        chosen = _repaired(case, order, self.budgets, delimiters)
        if self.how == "boundary":
            return frozenset(_boundary(case, order)[: len(chosen)])
        if self.how == "blend":
            return frozenset(ranked()[: len(chosen)])
        return chosen


def parse_arms(texts: Iterable[str] | dict[str, str]) -> tuple[Arm, ...]:
    """Arms by built-in name or as text; of a dictionary, under its own names.

    Raises:
        FidelityError: an arm that does not exist, or is named twice.
    """
    named = texts if isinstance(texts, dict) else {text: ARMS.get(text, text) for text in texts}
    if not named:
        raise FidelityError(f"no arm is named; there are {', '.join(ARMS)}")
    return tuple(_parse(name, text) for name, text in named.items())


def _parse(name: str, text: str) -> Arm:
    if text == "amortize":
        return Arm(name, text, "repair", _budgets(""))
    if text == "unrotated":
        return Arm(name, text, "unrotated", _budgets(""))
    head, colon, rest = text.partition(":")
    if not colon:
        return Arm(name, text, "repair", _budgets(text))
    if head == "boundary":
        return Arm(name, text, "boundary", _budgets(rest))
    if head == "blend":
        return Arm(name, text, "blend", _budgets(rest))
    raise FidelityError(
        f"no arm is written {text!r}; there are {', '.join(ARMS)}, and sets such as "
        "window=16,echo=256,tail=128,delimiter=4"
    )


def _budgets(text: str) -> RepairConfig:
    """A repair set; what is not named is not in it."""
    given: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in _BUDGETS or not value.isdecimal():
            raise FidelityError(
                f"{part!r} is no part of a repair set; a set is made of "
                f"{', '.join(f'{known}=TOKENS' for known in _BUDGETS)}"
            )
        given[key] = int(value)
    if given.get("ngram") == 0:
        raise FidelityError("ngram is the length of a match; it is at least 1")
    return RepairConfig(
        window=given.get("window", 0),
        ngram=given.get("ngram", _DEFAULT.ngram),
        max_echo=given.get("echo", 0),
        tail=given.get("tail", 0),
        delimiter=given.get("delimiter", 0),
    )


def _repaired(
    case: Case, order: Order, budgets: RepairConfig, delimiters: frozenset[int]
) -> frozenset[int]:
    """What the engine's REPAIR recomputes with these budgets."""
    held = case.held[order]
    config = replace(budgets, delimiter_ids=delimiters)
    directives = [d._replace(mode=Mode.REPAIR) for d in case.directives]
    appended = len(case.unedited) - held
    return choose_repair(case.unedited[:held], directives, appended, config).positions


def _boundary(case: Case, order: Order) -> Sequence[int]:
    """Kept positions behind the edit, those next to the start of their run first."""
    runs = [
        r for r in kept_runs(case.directives, case.held[order]) if r.start >= case.directives[0].end
    ]
    places = [(at - r.start, at + r.shift) for r in runs for at in range(r.start, r.end)]
    return [position for _, position in sorted(places)]
