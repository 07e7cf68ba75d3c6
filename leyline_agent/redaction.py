"""Redactions beside other edits: what one policy takes out stands in no other edit's words.

A message has one edit a turn. Where two policies redact it, or an edit quotes what another redacts,
waiting for the next turn would send the secret once. So each policy that redacts is asked again, on
the view after the turn's edits, and what it wants there is folded into them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from leyline_agent.edit import Edit, sift
from leyline_agent.errors import EditError, OverlappingSpans
from leyline_agent.message import Message
from leyline_agent.question import Ask
from leyline_agent.trajectory import Trajectory

__all__ = ["Again", "in_force", "is_sound", "redacts"]

Again = Callable[[Trajectory], Sequence[Edit | Ask]]
"""What a policy wants on another view."""

MAX_RUNS = 32
"""How often a policy that always finds something is asked; it may take out one secret each time."""


def redacts(wants: Iterable[Edit | Ask]) -> bool:
    """Whether an edit that redacts is among them."""
    return any(isinstance(want, Edit) and want.redact for want in wants)


def is_sound(edit: Edit) -> bool:
    """Whether every replacement is a message with a role."""
    return all(isinstance(m, Mapping) and m.get("role") for m in edit.replacement)


def in_force(
    wants: Sequence[Edit | Ask], trajectory: Trajectory, redactors: Sequence[Again]
) -> list[Edit | Ask]:
    """The batch with everything in it that the redactors want, folded into one edit a place.

    Of two redactions that cannot be one the wider is folded in. What is illegal stays, to be told.

    Args:
        wants: as `arranged` gives them.
        trajectory: the view they are for.
        redactors: the policies that redact in this turn, asked in this order.
    """
    edits = [want for want in wants if isinstance(want, Edit)]
    legal, refused = sift(list(filter(is_sound, edits)), trajectory.messages, trajectory.pinned)
    batch, is_stable = list(legal), True
    for again in redactors:
        batch, ended = _asked_again(batch, trajectory, again)
        is_stable = is_stable and ended
    folded = {id(edit) for edit, error in refused if is_stable and _is_folded(edit, error)}
    folded |= set(map(id, legal))
    return [
        *batch,
        *(edit for edit in edits if id(edit) not in folded),
        *(want for want in wants if isinstance(want, Ask)),
    ]


def _is_folded(edit: Edit, error: EditError) -> bool:
    return edit.redact and isinstance(error, OverlappingSpans)


def _asked_again(
    batch: list[Edit], trajectory: Trajectory, again: Again
) -> tuple[list[Edit], bool]:
    """The batch with what a policy redacts of its outcome, and whether nothing is left of that."""
    for _ in range(MAX_RUNS):
        edited = trajectory.edited(batch)
        wanted = [want for want in again(edited) if isinstance(want, Edit) and want.redact]
        fresh = [edit for edit in wanted if is_sound(edit) and _changes(edit, edited)]
        legal, _ = sift(fresh, edited.messages, edited.pinned)
        if not legal:
            return batch, True
        for edit in reversed(legal):  # Right to left: places left of it stay what they are.
            batch = _folded(batch, edit)
    return batch, False


def _changes(edit: Edit, trajectory: Trajectory) -> bool:
    """Whether it takes something away; an insertion redacts nothing."""
    before = trajectory.messages[edit.start : edit.end]
    return bool(before) and list(before) != list(edit.replacement)


class _Placed(NamedTuple):
    """An edit, and where its replacement stands in the view behind the batch."""

    edit: Edit
    start: int
    end: int


def _folded(batch: Sequence[Edit], later: Edit) -> list[Edit]:
    """One batch that does what `batch` and then `later`, an edit of its outcome, do."""
    apart: list[Edit] = []
    touched: list[_Placed] = []
    shift = before = 0
    for edit in sorted(batch, key=lambda e: (e.start, e.end)):
        start = edit.start + shift
        placed = _Placed(edit, start, start + len(edit.replacement))
        shift += edit.count_delta
        if later.start < placed.end and placed.start < later.end:
            touched.append(placed)
        else:
            apart.append(edit)
        if placed.end <= later.start:
            before = shift
    return [*apart, _merged(touched, later, before)]


def _merged(touched: Sequence[_Placed], later: Edit, shift: int) -> Edit:
    """One edit for `later` and those it touches; `shift` is of the edits in front of it."""
    start = later.start - shift
    end = later.end - shift - sum(placed.edit.count_delta for placed in touched)
    head: tuple[Message, ...] = ()
    tail: tuple[Message, ...] = ()
    if touched and touched[0].start <= later.start:
        first = touched[0]
        start, head = first.edit.start, first.edit.replacement[: later.start - first.start]
    if touched and touched[-1].end >= later.end:
        last = touched[-1]
        end, tail = last.edit.end, last.edit.replacement[later.end - last.start :]
    made = (*head, *later.replacement, *tail)
    if len(touched) == 1 and touched[0].start <= later.start and later.end <= touched[0].end:
        return replace(touched[0].edit, replacement=made)
    allowed = later.may_edit.union(*(placed.edit.may_edit for placed in touched))
    return replace(later, start=start, end=end, replacement=made, may_edit=allowed)
