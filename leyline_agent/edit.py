"""Edits: what a policy asks for, in message space, and which edits are legal.

An edit replaces the half-open range [start, end) of a *view* (the messages the model sees) by
other messages. All edits of one batch use the indices of the same view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from leyline_agent.directive import Mode, as_mode
from leyline_agent.errors import (
    BrokenToolPair,
    EditError,
    InvalidSpan,
    OverlappingSpans,
    PinnedMessage,
)
from leyline_agent.message import Message, calls

__all__ = [
    "Edit",
    "Protected",
    "apply",
    "as_protected",
    "check",
    "loose_ends",
    "protected_indices",
    "sift",
]

Protected = Literal["system", "task"]


@dataclass(frozen=True)
class Edit:
    """Replace messages [start, end) of a view by `replacement`.

    Attributes:
        start: first message replaced; half-open, in the view the policy was given.
        end: one past the last; equal to `start` for an insertion.
        replacement: the messages put there; empty to drop the range.
        mode: how the engine carries it out; None takes the policy's mode.
        reason: one short phrase for people and receipts ("stale", "failed").
        policy: the policy's name; filled in by the policy machinery.
        redact: FORGET, scrub the engine's copies, and keep only a digest in the journal.
        may_edit: protected messages this edit is allowed to touch.

    Raises:
        UnsupportedMode: a mode of another name; its name stands for a mode.
        EditError: `may_edit` names something else than "system" and "task".
    """

    start: int
    end: int
    replacement: tuple[Message, ...] = ()
    mode: Mode | None = None
    reason: str = ""
    policy: str = ""
    redact: bool = False
    may_edit: frozenset[Protected] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        # Policies are written by hand: a name or a list is as good, a slip is told where it is.
        if self.mode is not None and not isinstance(self.mode, Mode):
            object.__setattr__(self, "mode", as_mode(self.mode))
        if not isinstance(self.may_edit, frozenset) or self.may_edit:
            object.__setattr__(self, "may_edit", as_protected(self.may_edit))

    @property
    def count_delta(self) -> int:
        """By how many messages the view grows (negative: shrinks)."""
        return len(self.replacement) - (self.end - self.start)

    def overlaps(self, other: Edit) -> bool:
        """Whether both touch a message, or both insert at one place."""
        same = (self.start, self.end) == (other.start, other.end)
        return same or (self.start < other.end and other.start < self.end)

    def effective_mode(self, default: Mode = Mode.REPAIR) -> Mode:
        """The mode asked for: FORGET when redacting, else `mode`, else `default`."""
        return Mode.FORGET if self.redact else self.mode or default

    def __str__(self) -> str:
        what = f"messages [{self.start}, {self.end})"
        return f"{self.policy}: {what}" if self.policy else what


def as_protected(kinds: Iterable[str]) -> frozenset[Protected]:
    """What may be edited, from one name or several.

    Raises:
        EditError: a name other than "system" and "task".
    """
    names = {kinds} if isinstance(kinds, str) or not isinstance(kinds, Iterable) else set(kinds)
    if not names <= {"system", "task"}:
        raise EditError(f"may_edit takes 'system' and 'task', not {kinds!r}")
    return frozenset(names)  # type: ignore[arg-type]


def protected_indices(messages: Sequence[Message]) -> dict[int, Protected]:
    """The system prompt (system or developer messages) and the task (the first user message).

    Greetings an assistant opens with stand between the two unprotected; what follows the task is
    never protected.
    """
    result: dict[int, Protected] = {}
    for index, message in enumerate(messages):
        role = message.get("role")
        if role in ("system", "developer"):
            result[index] = "system"
        elif role == "user":
            result[index] = "task"
            break
    return result


def check(
    edits: Iterable[Edit], messages: Sequence[Message], pinned: Collection[int] = ()
) -> tuple[Edit, ...]:
    """The batch sorted by place, after checking that it is legal on `messages`.

    Raises:
        InvalidSpan: a range outside the view, or an edit that changes nothing.
        OverlappingSpans: two edits touch the same message.
        PinnedMessage: an edit touches a pinned or protected message it may not edit.
        BrokenToolPair: a tool result would stand without its call, or a call lose its result.
    """
    ordered = tuple(sorted(edits, key=lambda e: (e.start, e.end)))
    _check_spans(ordered, len(messages))
    _check_pins(ordered, messages, pinned)
    if ordered:
        _check_pairs(ordered, messages)
    return ordered


def sift(
    edits: Sequence[Edit], messages: Sequence[Message], pinned: Collection[int] = ()
) -> tuple[tuple[Edit, ...], tuple[tuple[Edit, EditError], ...]]:
    """The legal part of a batch, sorted by place, and the rest, each edit with its reason.

    One illegal edit does not take the others with it; of two that overlap the earlier in the
    batch is kept.
    """
    try:
        return check(edits, messages, pinned), ()
    except EditError:
        pass
    legal: list[Edit] = []
    refused: list[tuple[Edit, EditError]] = []
    for edit in edits:
        try:
            _check_pins([edit], messages, pinned)
            _check_spans(sorted([*legal, edit], key=lambda e: (e.start, e.end)), len(messages))
        except EditError as error:
            refused.append((edit, error))
        else:
            legal.append(edit)
    legal.sort(key=lambda e: (e.start, e.end))
    while broken := _broken_pairs(legal, messages):
        guilty = _guilty(legal, messages, {call_id for _, call_id in broken})
        refused += [(edit, _pair_error([edit], broken)) for edit in guilty]
        legal = [edit for edit in legal if edit not in guilty]
    return tuple(legal), tuple(refused)


def apply(edits: Iterable[Edit], messages: Sequence[Message]) -> list[Message]:
    """The messages after a batch that `check` has passed."""
    result: list[Message] = []
    cursor = 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        result.extend(messages[cursor : edit.start])
        result.extend(edit.replacement)
        cursor = edit.end
    result.extend(messages[cursor:])
    return result


def _check_spans(ordered: Sequence[Edit], length: int) -> None:
    previous: Edit | None = None
    for edit in ordered:
        if not 0 <= edit.start <= edit.end <= length:
            raise InvalidSpan(
                f"{edit} does not fit a view of {length} messages; ranges are half-open"
            )
        if edit.start == edit.end and not edit.replacement:
            raise InvalidSpan(f"{edit} is empty and inserts nothing; drop it")
        if previous is not None and previous.overlaps(edit):
            raise OverlappingSpans(f"{previous} and {edit} overlap; yield one edit for both")
        previous = edit


def _check_pins(
    ordered: Sequence[Edit], messages: Sequence[Message], pinned: Collection[int]
) -> None:
    protected = protected_indices(messages)
    for edit in ordered:
        for index in range(edit.start, edit.end):
            kind = protected.get(index)
            if kind is not None and kind not in edit.may_edit:
                raise PinnedMessage(
                    f"{edit} touches message {index}, the {kind} message; a policy that means "
                    f"to must declare may_edit={{'{kind}'}}"
                )
            if index in pinned:
                raise PinnedMessage(f"{edit} touches message {index}, which is pinned")


def _check_pairs(ordered: Sequence[Edit], messages: Sequence[Message]) -> None:
    broken = _broken_pairs(ordered, messages)
    if broken:
        raise _pair_error(ordered, broken)


def _broken_pairs(ordered: Sequence[Edit], messages: Sequence[Message]) -> Counter[tuple[str, str]]:
    if all(_keeps_pairs(edit, messages) for edit in ordered):
        return Counter()
    return loose_ends(apply(ordered, messages)) - loose_ends(messages)


def _keeps_pairs(edit: Edit, messages: Sequence[Message]) -> bool:
    """Whether each message has one in its place that makes or answers the same calls."""
    before = messages[edit.start : edit.end]
    return len(before) == len(edit.replacement) and all(
        old.get("role") == new.get("role")
        and old.get("tool_call_id") == new.get("tool_call_id")
        and old.get("name") == new.get("name")
        and _call_ids(old) == _call_ids(new)
        for old, new in zip(before, edit.replacement, strict=True)
    )


def _pair_error(edits: Sequence[Edit], broken: Counter[tuple[str, str]]) -> BrokenToolPair:
    (kind, call_id), _ = broken.most_common(1)[0]
    lost = "its call" if kind == "result" else "its result"
    where = "; ".join(str(edit) for edit in edits)
    return BrokenToolPair(
        f"{where}: the {kind} with id {call_id!r} would stand without {lost}; edit a call and "
        "its results together, or replace a result's content in place"
    )


def _guilty(
    edits: Sequence[Edit], messages: Sequence[Message], call_ids: set[str]
) -> Sequence[Edit]:
    """The edits to blame for broken pairs: best those that touch such a pair and break it alone."""
    alone = [edit for edit in edits if _broken_pairs([edit], messages)]
    touching = [edit for edit in edits if not call_ids.isdisjoint(_touched_ids(edit, messages))]
    return [edit for edit in alone if edit in touching] or touching or alone or edits


def _touched_ids(edit: Edit, messages: Sequence[Message]) -> set[str]:
    touched: set[str] = set()
    for message in (*messages[edit.start : edit.end], *edit.replacement):
        touched.update(_call_ids(message))
        touched.add(str(message.get("tool_call_id") or ""))
    return touched


def loose_ends(messages: Sequence[Message]) -> Counter[tuple[str, str]]:
    """Results without their call, and calls without their result, by kind and id.

    The open calls of the last turn have a kind of their own: where the view ends with them, their
    tools still run, and an edit may neither add such a call nor put anything behind it.
    """
    loose: Counter[tuple[str, str]] = Counter()
    open_calls: list[str] = []
    for message in messages:
        if message.get("role") in ("tool", "function"):
            call_id = str(message.get("tool_call_id") or "")
            if call_id in open_calls:
                open_calls.remove(call_id)
            elif open_calls and not call_id:
                open_calls.pop(0)
            else:
                loose["result", call_id or str(message.get("name") or "")] += 1
            continue
        for call_id in open_calls:
            loose["call", call_id] += 1
        open_calls = _call_ids(message)
    for call_id in open_calls:
        loose["running call", call_id] += 1
    return loose


def _call_ids(message: Message) -> list[str]:
    return [str(call.get("id") or "") for call in calls(message)]
