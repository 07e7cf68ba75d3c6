"""Pending edits: a turn's legal edits, measured in tokens, those that belong together as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from leyline_agent.directive import Mode
from leyline_agent.proposal import Accepted
from leyline_agent.receipt import Reason
from leyline_agent.timing.moment import EditPlace
from leyline_agent.trajectory import Trajectory

__all__ = ["Pending", "Place", "pending"]

Place = tuple[int, int]


@dataclass(frozen=True)
class Pending:
    """Edits that are made together or not at all: those of one reply and its results.

    Tokens are estimates, by characters, calibrated by the last real usage.

    Attributes:
        edits: where they are.
        at: tokens of the view in front of the first one.
        removed: tokens they remove; `seen`: those of them that were sent before.
        inserted: tokens they put there.
        repairs: how many of them compute something again where the engine splices.
        must: why they cannot be held; "" where they can.
    """

    edits: tuple[EditPlace, ...]
    at: int
    removed: int
    seen: int
    inserted: int
    repairs: int = 0
    must: str = ""

    @property
    def saves(self) -> int:
        """Tokens by which they shorten every later prompt."""
        return self.removed - self.inserted


def pending(
    accepted: Sequence[Accepted],
    trajectory: Trajectory,
    known: int,
    declared: Collection[Place] = (),
) -> tuple[Pending, ...]:
    """A turn's edits as they can be taken or held, by place.

    Args:
        accepted: the edits, by place.
        trajectory: the view they are of.
        known: how many messages of the view were sent or generated before.
        declared: places of the edits that the harness declared itself.
    """
    sizes = [trajectory.tokens([message]) for message in trajectory.messages]
    before = [0, *accumulate(sizes)]
    return tuple(
        _measured(group, trajectory, before, known, declared)
        for group in _together(accepted, _replies(trajectory))
    )


def _replies(trajectory: Trajectory) -> list[int]:
    """For each place of the view the number of the reply it belongs to, itself or its result."""
    roles = [message.get("role") == "assistant" for message in trajectory.messages]
    return [*accumulate(map(int, roles)), sum(roles)]


def _together(accepted: Sequence[Accepted], replies: Sequence[int]) -> list[list[Accepted]]:
    """The edits in groups; no two groups touch the same reply."""
    groups: list[list[Accepted]] = []
    reached = -1
    for one in accepted:
        first = replies[one.edit.start]
        last = replies[max(one.edit.start, one.edit.end - 1)]
        if groups and first <= reached:
            groups[-1].append(one)
        else:
            groups.append([one])
        reached = max(reached, last)
    return groups


def _measured(
    group: Sequence[Accepted],
    trajectory: Trajectory,
    before: Sequence[int],
    known: int,
    declared: Collection[Place],
) -> Pending:
    edits = [one.edit for one in group]
    removed = sum(before[edit.end] - before[edit.start] for edit in edits)
    inserted = sum(trajectory.tokens(edit.replacement) for edit in edits)
    return Pending(
        edits=tuple(EditPlace(start=e.start, end=e.end, policy=e.policy) for e in edits),
        at=before[edits[0].start],
        removed=removed,
        seen=sum(before[min(e.end, known)] - before[min(e.start, known)] for e in edits),
        inserted=inserted,
        repairs=sum(one.mode is not Mode.AMORTIZE for one in group),
        must=_must(group, removed - inserted, known, declared),
    )


def _must(group: Sequence[Accepted], saves: int, known: int, declared: Collection[Place]) -> str:
    """Why a group cannot be held; "" where it can."""
    if any(_forgets(one) for one in group):
        return "what is to be forgotten is never held"
    if any((one.edit.start, one.edit.end) in declared for one in group):
        return "the harness declared them for this call"
    if all(one.edit.start >= known for one in group):
        return "what they change was never sent, so no cache is lost"
    if saves <= 0:
        return "they shorten nothing, so there is no saving to weigh"
    return ""


def _forgets(one: Accepted) -> bool:
    """Whether FORGET was asked for, by the edit or the user; not where the engine has no other."""
    return one.mode is Mode.FORGET and one.reason is not Reason.ENGINE_CANNOT_SPLICE
