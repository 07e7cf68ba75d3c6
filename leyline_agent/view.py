"""Views: what the model sees, as pieces that each stand for a range of the history.

The history is a sequence of records and is never changed. A view tiles it with pieces:

    history   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
    pieces    | 0 | 1 | 2 |   stub    | 6 | 7 |      stub: Piece(3, 6, (record,), policy)

An unedited piece is one message standing for itself. An edited piece stands for the messages it
covers, with any number of messages in their place: none where they were dropped; an inserted
message stands for an empty range. Edits of edits merge, so a view never grows layers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from leyline_agent.edit import Edit
from leyline_agent.message import Message, called, calls, canonical, copy, digest

__all__ = ["Cut", "Piece", "Record", "View", "common", "record", "restored", "tombstone"]

TOMBSTONE_FIELD = "leyline_redacted"

ANONYMOUS = "edit"
"""Who edited a piece, where the edit does not say."""


class Record(NamedTuple):
    """One message as a session keeps it.

    Attributes:
        message: a deep copy, or a tombstone when redacted.
        digest: `message.digest` of the original message.
        redacted: the original text is gone; only the digest is left of it.
        pinned: no edit may touch it.
        recall: the id under which the whole of a shortened tool result is kept, or the one that
            this result of a recall shows; "" when there is none.
        bare: a stub as its policy wrote it, without the line that names the id; None for others.
    """

    message: Message
    digest: str
    redacted: bool = False
    pinned: bool = False
    recall: str = ""
    bare: Message | None = None

    @property
    def seen(self) -> Message:
        """The message as policies see it."""
        return self.message if self.bare is None else self.bare

    def matches(self, message: Mapping[str, Any]) -> bool:
        """Whether `message` is this one; cheap when it is equal as a dictionary."""
        if self.message == message:
            return True
        if self.redacted:
            return self.digest == digest(message)
        return canonical(self.message) == canonical(message)


def record(message: Mapping[str, Any]) -> Record:
    """A record of a message, hashed once."""
    return Record(copy(message), digest(message))


def tombstone(original: Record) -> Record:
    """What is kept of a redacted message: its role, its call ids and its digest."""
    if original.redacted:
        return original
    kept = original.message
    message: Message = {"role": kept.get("role"), "content": "[redacted]"}
    for key in ("tool_call_id", "name"):
        if kept.get(key) is not None:
            message[key] = kept[key]
    if kept.get("tool_calls"):
        message["tool_calls"] = [_tombstone_call(call) for call in calls(kept)]
    message[TOMBSTONE_FIELD] = original.digest
    return original._replace(message=message, redacted=True, bare=None)


def _tombstone_call(call: Mapping[str, Any]) -> dict[str, Any]:
    name, _ = called(call)
    return {
        "id": call.get("id"),
        "type": "function",
        "function": {"name": name, "arguments": "{}"},
    }


def restored(message: Message) -> Record:
    """The record of a message read back from a journal; a tombstone stays one."""
    if TOMBSTONE_FIELD in message:
        return Record(message, str(message[TOMBSTONE_FIELD]), redacted=True)
    return Record(message, digest(message))


class Piece(NamedTuple):
    """A part of a view: `records` stand for the history range [start, end).

    Attributes:
        start, end: half-open, in messages of the history; empty for an insertion.
        records: what the model sees there; empty for a dropped range.
        policy: who edited it; "" when it is one message standing for itself.
        rounds: how often it was edited again with nothing new in it.
    """

    start: int
    end: int
    records: tuple[Record, ...]
    policy: str = ""
    rounds: int = 0


class Cut(NamedTuple):
    """The front part of a view.

    Attributes:
        view: the pieces kept.
        kept: number of history messages they stand for.
    """

    view: View
    kept: int


@dataclass(frozen=True)
class View:
    """What the model sees, as pieces tiling the history without a gap."""

    pieces: tuple[Piece, ...] = ()

    @cached_property
    def records(self) -> tuple[Record, ...]:
        """The records of the view's messages, in order."""
        return tuple(record for piece in self.pieces for record in piece.records)

    @cached_property
    def _starts(self) -> list[int]:
        """View index at which each piece begins, and the view's length behind the last."""
        starts = [0]
        for piece in self.pieces:
            starts.append(starts[-1] + len(piece.records))
        return starts

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def history_len(self) -> int:
        """Number of history messages the view stands for."""
        return self.pieces[-1].end if self.pieces else 0

    @cached_property
    def edited(self) -> bool:
        """Whether any piece is more or less than one message standing for itself."""
        return any(piece.policy for piece in self.pieces)

    def plain_indices(self) -> Iterable[tuple[int, int]]:
        """(view index, history index) of every message that stands for itself."""
        for piece, start in zip(self.pieces, self._starts, strict=False):
            if not piece.policy:
                yield start, piece.start

    def inserted(self) -> Iterable[tuple[int, Record]]:
        """(view index, record) of every message that stands for none of the history."""
        for piece, start in zip(self.pieces, self._starts, strict=False):
            if piece.start == piece.end:
                yield from enumerate(piece.records, start)

    def answered(self, policy: str, call: Record, results: Sequence[Record], count: int) -> View:
        """The view with a call that `count` new messages of the history (0 or 1) stand for.

        The results behind it stand for none.
        """
        first, behind = self.history_len, self.history_len + count
        if not count:
            return View((*self.pieces, Piece(first, first, (call, *results), policy)))
        shown = Piece(first, behind, (call,), policy)
        return View((*self.pieces, shown, Piece(behind, behind, tuple(results), policy)))

    def extended(self, records: Iterable[Record]) -> View:
        """The view with new messages of the history behind it."""
        first = self.history_len
        new = (Piece(first + i, first + i + 1, (r,)) for i, r in enumerate(records))
        return View((*self.pieces, *new))

    def fold(self, edits: Sequence[tuple[Edit, tuple[Record, ...]]]) -> View:
        """The view after a legal batch of edits, each with the records of its replacement."""
        pieces = list(self.pieces)
        for edit, records in sorted(edits, key=lambda e: (e[0].start, e[0].end), reverse=True):
            self._fold_one(pieces, edit, records)
        return View(tuple(pieces))

    def _fold_one(self, pieces: list[Piece], edit: Edit, records: tuple[Record, ...]) -> None:
        """Edits come right to left: where pieces left of this one begin has not changed yet."""
        first, behind = self._covered(edit)
        policy, rounds = edit.policy or ANONYMOUS, self.rounds(edit)
        if first == behind:
            start, end = self.covers(edit)
            pieces.insert(first, Piece(start, end, records, policy, rounds))
            return
        start, end = pieces[first].start, pieces[behind - 1].end
        head = pieces[first].records[: edit.start - self._starts[first]]
        tail = pieces[behind - 1].records[edit.end - self._starts[behind - 1] :]
        merged = Piece(start, end, (*head, *records, *tail), policy, rounds)
        pieces[first:behind] = [] if start == end and not merged.records else [merged]

    def _covered(self, edit: Edit) -> tuple[int, int]:
        """The half-open range of pieces an edit touches; empty for an insertion between two."""
        first = bisect_right(self._starts, edit.start) - 1
        if edit.start == edit.end and self._starts[first] == edit.start:
            return first, first
        behind = first + 1
        while behind < len(self.pieces) and self._starts[behind] < edit.end:
            behind += 1
        return first, behind

    def covers(self, edit: Edit) -> tuple[int, int]:
        """The half-open range of the history that an edit of this view stands for."""
        first, behind = self._covered(edit)
        if first == behind:
            at = self.pieces[first].start if first < len(self.pieces) else self.history_len
            return at, at
        return self.pieces[first].start, self.pieces[behind - 1].end

    def rounds(self, edit: Edit) -> int:
        """How often the messages an edit touches were edited, if nothing unedited is among them.

        An insertion beside the same policy's earlier insertion counts as editing that one again.
        """
        first, behind = self._covered(edit)
        touched = self.pieces[first:behind]
        if not touched:
            beside = self.pieces[max(first - 1, 0) : first + 1]
            touched = tuple(p for p in beside if p.start == p.end and p.policy == edit.policy)
        if not touched or not all(piece.policy for piece in touched):
            return 0
        return max(piece.rounds for piece in touched) + 1

    def cut_history(self, at: int) -> Cut:
        """The pieces that stand for history before message `at` and nothing behind it."""
        count = 0
        while count < len(self.pieces) and self.pieces[count].end <= at:
            count += 1
        return self.cut_pieces(count)

    def cut_view(self, at: int) -> Cut:
        """The pieces that lie whole before view index `at`."""
        return self.cut_pieces(bisect_right(self._starts, at) - 1)

    def cut_pieces(self, count: int) -> Cut:
        """The first `count` pieces."""
        if count == len(self.pieces):
            return Cut(self, self.history_len)
        view = View(self.pieces[:count])
        return Cut(view, view.history_len)

    def buried(self, stubs: Collection[str]) -> View:
        """The view with tombstones for the edited messages of these digests."""
        return View(
            tuple(
                piece._replace(
                    records=tuple(tombstone(r) if r.digest in stubs else r for r in piece.records)
                )
                if piece.policy
                else piece
                for piece in self.pieces
            )
        )

    def replaced(self, changed: Mapping[int, Record]) -> View:
        """The view with other records of the same messages: history index -> record."""
        return View(
            tuple(
                piece
                if piece.policy or piece.start not in changed
                else piece._replace(records=(changed[piece.start],))
                for piece in self.pieces
            )
        )


def common(records: Sequence[Record], messages: Sequence[Message]) -> tuple[int, list[int]]:
    """How many leading messages are the recorded ones, and which of them look different.

    "Look different" means the same message with other bookkeeping (a cache hint, an echo).
    """
    changed: list[int] = []
    for index, (known, message) in enumerate(zip(records, messages, strict=False)):
        if known.message == message:
            continue
        if not known.matches(message):
            return index, changed
        changed.append(index)
    return min(len(records), len(messages)), changed
