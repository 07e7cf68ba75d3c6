"""Let a policy edit only while a condition holds."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable

from pydantic import field_validator

from leyline_agent.edit import Edit
from leyline_agent.question import Ask
from leyline_agent.trajectory import Trajectory
from leyline_policies.wrapper import Wrapper

__all__ = ["When"]

_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\d+)\s*")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_QUANTITY: dict[str, Callable[[Trajectory], int]] = {
    "tokens": lambda trajectory: trajectory.tokens(),
    "messages": lambda trajectory: len(trajectory.messages),
    "results": lambda trajectory: len(trajectory.tool_results),
    "turns": lambda trajectory: sum(m.get("role") == "assistant" for m in trajectory.messages),
}


class When(Wrapper):
    """A policy's edits while a condition holds on the view, none otherwise.

    What was edited stays edited when the condition ceases to hold. With `tokens` the condition may
    hold again every turn: let the policy batch (`polling`, `clear_at_least`), or take `budget`.

    Source: ours. Around `keep_last:n=10,polling=10` with tokens>=16000, on 8 recorded
    mini-swe-agent runs, in thousand tokens: prompts 12,089 to 8,391 (without the condition 7,985);
    computed 439 with a prefix cache only, 193 with REPAIR, 176 with AMORTIZE (494, 199 and 176;
    append-only 172).

    Attributes:
        condition: "tokens>=50000": `tokens` (an estimate), `messages`, `results` or `turns`,
            compared with a number; in Python also a pure function of the trajectory.
    """

    condition: str | Callable[[Trajectory], bool]

    @field_validator("condition")
    @classmethod
    def _known(cls, value: object) -> object:
        found = _CONDITION.fullmatch(value) if isinstance(value, str) else None
        if isinstance(value, str) and (found is None or found[1] not in _QUANTITY):
            known = ", ".join(_QUANTITY)
            raise ValueError(f"{value!r} is no condition; write tokens>=50000, or {known} so")
        return value

    def edits(self, trajectory: Trajectory) -> Iterable[Edit | Ask]:
        """The other policy's edits, or none."""
        return self.inner(trajectory) if self._holds(trajectory) else ()

    def _holds(self, trajectory: Trajectory) -> bool:
        if not isinstance(self.condition, str):
            return self.condition(trajectory)
        quantity, comparison, number = _CONDITION.fullmatch(self.condition).groups()  # type: ignore[union-attr]
        return _COMPARE[comparison](_QUANTITY[quantity](trajectory), int(number))
