"""Policies around a policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from leyline_agent.directive import Mode, strongest
from leyline_agent.edit import Edit
from leyline_agent.policy import Policy, as_policy
from leyline_agent.question import Ask
from leyline_agent.trajectory import Trajectory

__all__ = ["Wrapper"]


class Wrapper(Policy):
    """A policy that lets through some of another policy's edits; as text `policy=(...)`.

    Edits keep the name, reason and permissions of the policy they come from.

    Attributes:
        policy: the other policy: anything `as_policy` takes.
        mode: the weakest mode of any edit; a stronger one of the other policy's stays.
    """

    policy: Annotated[SerializeAsAny[Policy], BeforeValidator(as_policy)]
    mode: Mode = Mode.AMORTIZE

    @property
    def redacts(self) -> bool:
        """Whether the other policy does."""
        return self.policy.redacts

    def inner(self, trajectory: Trajectory) -> list[Edit | Ask]:
        """What the other policy wants, no edit in a weaker mode than this policy's."""
        return [
            want
            if isinstance(want, Ask) or (want.mode and want.mode.strength >= self.mode.strength)
            else replace(want, mode=strongest(want.mode or self.mode, self.mode))
            for want in self.policy.wants(trajectory)
        ]
