"""An engine's side of a commit: the view before its edits, and those edits lowered on it.

A commit tells which messages of the previous view became which of this one. An engine holds the
previous view, so it can say what each edit is in tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline_agent.adapter import Commit, WireEdit
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.lowering import Lowering, Renderer, lower
from leyline_agent.message import Message
from leyline_agent.receipt import EditReceipt, Reason

__all__ = ["Held", "Undone", "Unseen", "lower_commit", "unlowered_receipt"]


@dataclass(frozen=True)
class Held:
    """The version that a commit's edits start from, as its engine holds it.

    Attributes:
        number: the version's.
        messages: its view, prompt and reply.
        tokens: those whose KV is held.
    """

    number: int
    messages: Sequence[Message]
    tokens: Sequence[int]


@dataclass(frozen=True)
class Unseen:
    """An edit of messages that the engine has not seen, or not all of them."""

    place: int
    edit: WireEdit
    reason: Reason

    def told(self, base: Held) -> str:
        """Which edit it is, and what was not seen."""
        start, end = self.edit.messages
        held = f"version {base.number}, which has {len(base.messages)} messages here"
        if self.reason is Reason.UNSEEN:
            return f"the edit of messages [{start}, {end}) lies behind {held}"
        return f"the edit of messages [{start}, {end}) reaches past the end of {held}"

    @property
    def receipt(self) -> EditReceipt:
        """What became of it: no directive."""
        asked = Mode.FORGET if self.edit.redact else self.edit.mode
        return unlowered_receipt(asked, self.edit.policy, self.reason)


@dataclass(frozen=True)
class Undone:
    """The view before a commit's edits.

    Attributes:
        view: that view.
        edits: those of the commit's edits whose messages the engine has seen, in its indices.
        unseen: the others, with where they stand in `view`, and why.
    """

    view: Sequence[Message]
    edits: Sequence[Edit]
    unseen: Sequence[Unseen]

    @classmethod
    def of(cls, base: Held, view: Sequence[Message], commit: Commit) -> Undone:
        """What `view` was before its edits.

        Messages an edit replaced come from the base version; edits of messages the engine has
        never seen need no undoing.
        """
        seen = base.messages[: commit.base_len or None]
        unedited: list[Message] = []
        found: list[Edit] = []
        unseen: list[Unseen] = []
        cursor = at = 0  # in the unedited view, in the edited view
        for edit in sorted(commit.edits, key=lambda e: e.messages):
            start, end = edit.messages
            same = max(0, start - cursor)
            unedited.extend(view[at : at + same])
            at += same
            new = tuple(view[at : at + edit.count])
            at += edit.count
            cursor = end
            place = len(unedited)
            old = list(seen[start:end])
            if len(old) < end - start:  # reaches into messages not seen before
                unseen.append(Unseen(place, edit, Reason.UNDECLARED if old else Reason.UNSEEN))
                unedited.extend(new)
                continue
            unedited.extend(old)
            found.append(
                Edit(place, place + len(old), new, edit.mode, edit.reason, edit.policy, edit.redact)
            )
        unedited.extend(view[at:])
        return cls(unedited, found, unseen)

    def without(self, lowering: Lowering) -> list[tuple[int, bool, EditReceipt]]:
        """Edits that became no directive, left to right.

        Returns:
            Of each, the number of directives of edits before it, whether it redacts, its receipt.
        """
        lost = [
            (edit.start, edit.redact, unlowered_receipt(edit.effective_mode(), edit.policy, reason))
            for edit, reason in ((self.edits[i], why) for i, why in lowering.without.items())
        ]
        lost += [(one.place, one.edit.redact, one.receipt) for one in self.unseen]
        items = [item for item in lowering.items if item.edits]
        places = [min(self.edits[i].start for i in item.edits) for item in items]
        ordered = sorted(lost, key=lambda each: each[0])
        return [(bisect_left(places, place), redact, told) for place, redact, told in ordered]


def lower_commit(
    base: Held,
    view: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    commit: Commit,
    renderer: Renderer,
    edited: Sequence[int] | None = None,
) -> tuple[Undone, Lowering]:
    """A commit's edits in messages and in tokens.

    Args:
        base: the version it names.
        view: the commit's messages.
        tools: part of what is rendered.
        commit: the commit.
        renderer: the engine's.
        edited: the tokens of `view`, where the caller has rendered them.
    """
    undone = Undone.of(base, view, commit)
    lowering = lower(base.tokens, undone.view, undone.edits, renderer, tools=tools, edited=edited)
    return undone, lowering


def unlowered_receipt(asked: Mode, policy: str, reason: Reason) -> EditReceipt:
    """The receipt of an edit that became no directive."""
    used = Mode.FORGET if reason in (Reason.UNDECLARED, Reason.INVALID_EDIT) else asked
    return EditReceipt(mode_asked=asked, mode_used=used, reason=reason, policy=policy)
