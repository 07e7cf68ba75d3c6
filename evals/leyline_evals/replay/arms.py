"""Arms: the ways a recorded run is served, side by side.

append_only    nothing is edited; the prefix cache does all it can
prefix_cache   the policy's messages, served by an exact prefix cache alone
forget         the policy's edits as directives; what stands behind an edit is computed again
amortize       the same edits; what stands behind an edit is kept and moved
repair         amortize, and a few tokens of what was kept are computed again
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from enum import Enum

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.policy import Pipeline, Policy
from leyline_agent.question import Ask
from leyline_agent.trajectory import Trajectory
from leyline_evals.replay.errors import ReplayError

__all__ = ["ALL_ARMS", "Arm", "InMode", "parse_arms", "policy_of"]


class Arm(str, Enum):
    """One way to serve a run."""

    APPEND_ONLY = "append_only"
    PREFIX_CACHE = "prefix_cache"
    FORGET = "forget"
    AMORTIZE = "amortize"
    REPAIR = "repair"

    @property
    def edits(self) -> bool:
        """Whether the policy acts at all."""
        return self is not Arm.APPEND_ONLY

    @property
    def splices(self) -> bool:
        """Whether KV behind an edit should be reused."""
        return self in (Arm.AMORTIZE, Arm.REPAIR)

    @property
    def declares(self) -> bool:
        """Whether the engine is told of the edits."""
        return self is not Arm.PREFIX_CACHE


ALL_ARMS = tuple(Arm)


def parse_arms(text: str) -> tuple[Arm, ...]:
    """Arms from "amortize,repair", each once, in that order.

    Raises:
        ReplayError: an unknown name, or none at all.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [arm.value for arm in Arm]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"no arm {unknown[0]!r}" if unknown else "no arms given"
        raise ReplayError(f"{what}; the arms are {', '.join(known)}")
    return tuple(dict.fromkeys(Arm(name) for name in names))


class InMode(Policy):
    """A policy with every edit in one mode, but those that forget: no arm asks for less."""

    inner: Policy

    @property
    def name(self) -> str:
        """The inner policy's name."""
        return self.inner.name

    def wants(self, trajectory: Trajectory) -> list[Edit | Ask]:
        """What the inner policy wants, its edits in this mode."""
        return [
            replace(want, mode=self.mode) if isinstance(want, Edit) and not _forgets(want) else want
            for want in self.inner.wants(trajectory)
        ]

    def edits(self, trajectory: Trajectory) -> Iterable[Edit | Ask]:
        """The same as `wants`."""
        return self.wants(trajectory)


def _forgets(edit: Edit) -> bool:
    return edit.effective_mode() is Mode.FORGET


def policy_of(arm: Arm, policy: Policy) -> Policy | None:
    """The policy as this arm runs it; None where nothing is edited."""
    if not arm.edits:
        return None
    # A prefix cache knows no modes; it computes whatever follows a change again.
    return _in_mode(policy, Mode(arm.value) if arm.declares else Mode.FORGET)


def _in_mode(policy: Policy, mode: Mode) -> Policy:
    """A pipeline's parts one by one: a session runs them, and lets them fail, apart."""
    if isinstance(policy, Pipeline):
        return Pipeline(policies=tuple(_in_mode(part, mode) for part in policy.policies))
    return InMode(inner=policy, mode=mode)
