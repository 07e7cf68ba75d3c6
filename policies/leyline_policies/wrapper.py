"""Policies around a policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from leyline_agent.directive import Mode, strongest
from leyline_agent.edit import Edit
from leyline_agent.policy import Policy, as_policy
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

    def inner(self, trajectory: Trajectory) -> list[Edit]:
        """The other policy's edits, none in a weaker mode than this policy's."""
        return [
            replace(edit, mode=strongest(edit.mode or self.mode, self.mode))
            for edit in self.policy.propose(trajectory)
        ]
