"""Arms: a policy, and the mechanism it is served by. Both are varied, so both can be told apart.

plain          the policy's messages; no cache, every prompt is prefilled from its first token
prefix_cache   the same messages; an exact prefix cache does what it can
forget         the edits as directives; what stands behind an edit is computed again
amortize       the same edits; what stands behind an edit is kept and moved
repair         amortize, and a few tokens of what was kept are computed again

`keep_all`, the control, edits nothing; a prefix cache serves it. The first three compute the same
tokens from the same messages: where they differ in solved tasks, that is chance or rounding.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from enum import Enum

from pydantic import BaseModel, ConfigDict

from leyline_agent.policy import Policy, parse
from leyline_evals.replay import arms as replay
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.policy_files import PolicyFile, in_place

__all__ = ["CONTROL", "KEEP_ALL", "Mechanism", "SolveArm", "arms_of", "find", "parse_mechanisms"]

KEEP_ALL = "keep_all"
SLUG_CHARS = 48


class Mechanism(str, Enum):
    """How an arm's prompts are served."""

    PLAIN = "plain"
    PREFIX_CACHE = "prefix_cache"
    FORGET = "forget"
    AMORTIZE = "amortize"
    REPAIR = "repair"

    @property
    def declares(self) -> bool:
        """Whether the engine is told of the edits."""
        return self not in (Mechanism.PLAIN, Mechanism.PREFIX_CACHE)


class SolveArm(BaseModel):
    """A policy served by a mechanism.

    Attributes:
        policy: its text; `keep_all` edits nothing.
        mechanism: how it is served.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    mechanism: Mechanism

    @property
    def name(self) -> str:
        """As people write it: `keep_last:n=5@repair`; `keep_all` alone is the control."""
        if self == CONTROL:
            return KEEP_ALL
        return f"{self.policy}@{self.mechanism.value}"

    @property
    def slug(self) -> str:
        """A name for a folder, no other arm's."""
        short = re.sub(r"[^A-Za-z0-9_=.-]+", "-", self.name)[:SLUG_CHARS].strip("-.")
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:6]
        return short if short == self.name else f"{short}-{digest}"

    def policies(self, files: Sequence[PolicyFile] = ()) -> Policy | None:
        """The policy as this arm runs it; None where nothing is edited.

        Args:
            files: where those are that its text names.

        Raises:
            PolicyError: there is no such policy.
        """
        if self.policy == KEEP_ALL:
            return None
        same = replay.Arm(self.mechanism.value) if self.mechanism.declares else None
        return replay.policy_of(
            same or replay.Arm.PREFIX_CACHE, parse(in_place(self.policy, files))
        )


CONTROL = SolveArm(policy=KEEP_ALL, mechanism=Mechanism.PREFIX_CACHE)


def arms_of(policies: Sequence[str], mechanisms: Sequence[Mechanism]) -> tuple[SolveArm, ...]:
    """The control, and each policy by each mechanism; each arm once.

    What edits nothing has nothing to declare: of `keep_all` there is `plain` beside the control.

    Raises:
        PolicyError: there is no such policy.
    """
    for policy in policies:
        parse(policy)
    made = (
        SolveArm(policy=p, mechanism=m)
        for p in policies
        for m in mechanisms
        if p != KEEP_ALL or m is Mechanism.PLAIN
    )
    return tuple(dict.fromkeys([CONTROL, *made]))


def parse_mechanisms(text: str) -> tuple[Mechanism, ...]:
    """Mechanisms from "plain,repair", each once, in that order.

    Raises:
        EvalError: an unknown name, or none at all.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [one.value for one in Mechanism]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"no mechanism {unknown[0]!r}" if unknown else "no mechanisms given"
        raise EvalError(f"{what}; they are {', '.join(known)}")
    return tuple(dict.fromkeys(Mechanism(name) for name in names))


def find(text: str, arms: Sequence[SolveArm]) -> SolveArm:
    """The arm that a text names: its name, or its mechanism where only one arm has it.

    Raises:
        EvalError: none or several.
    """
    named = [arm for arm in arms if arm.name == text]
    named = named or [a for a in arms if a.mechanism.value == text and a.policy != KEEP_ALL]
    if len(named) != 1:
        what = "no arm" if not named else "several arms"
        raise EvalError(
            f"{what} {text!r}; the arms of this run are {', '.join(arm.name for arm in arms)}"
        )
    return named[0]
