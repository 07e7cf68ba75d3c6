"""Branches: where an incoming list of messages continues a session, and what stays valid there.

Every committed version is a snapshot: a history and the view of it. Snapshots that nothing
continues are the session's heads. An incoming list continues the head it shares most with; where
it departs from that head a branch opens, edits before that place stay and later ones drop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, loose_ends
from leyline_agent.message import Message, copy
from leyline_agent.proposal import Accepted
from leyline_agent.recall.exchange import POLICY, Exchange
from leyline_agent.trajectory import Observations, Trajectory
from leyline_agent.view import Cut, Record, View, common, tombstone

__all__ = [
    "CommittedEdit",
    "Draft",
    "Snapshot",
    "committed",
    "continued",
    "draft",
    "redacted",
    "reopened",
    "root",
    "shared",
]


@dataclass(frozen=True, slots=True)
class CommittedEdit:
    """An edit an engine has acknowledged.

    Attributes:
        version: the version it made.
        start, end: the half-open range of the history it stands for.
        count: number of messages it put there.
        mode: the mode it was sent with.
        reason, policy, redact: as in `Edit`.
    """

    version: int
    start: int
    end: int
    count: int
    mode: Mode
    reason: str = ""
    policy: str = ""
    redact: bool = False


@dataclass(frozen=True)
class Snapshot:
    """A committed version.

    Attributes:
        version: its number; 0 for the empty beginning.
        history: every message up to here, the reply included.
        view: what the model saw of it, the reply included.
        edits: the edits that made the view, oldest first.
        whole: the history as a trajectory.
        seen: the view as a trajectory, as policies see it.
        num_behind: how many messages of the view stand behind the prompt: the reply, or a recall.
        exchange: the recall, if it is one.
    """

    version: int
    history: tuple[Record, ...]
    view: View
    edits: tuple[CommittedEdit, ...]
    whole: Trajectory
    seen: Trajectory
    num_behind: int = 0
    exchange: Exchange | None = None


@dataclass(frozen=True)
class Draft:
    """A turn before its edits: a version's snapshot cut back to what is shared, plus what is new.

    Attributes:
        base: the version it continues.
        kept: number of history messages shared with the base.
        kept_pieces, kept_view: how many pieces and messages of its view stand unchanged.
        history, view, edits: as in `Snapshot`, with the new messages.
        whole, seen: the same as trajectories; of `seen`, only the messages are meant.
        outgoing: the view as it would be sent unedited: the caller's own messages where they
            stand for themselves.
    """

    base: int
    kept: int
    kept_pieces: int
    kept_view: int
    history: tuple[Record, ...]
    view: View
    edits: tuple[CommittedEdit, ...]
    whole: Trajectory
    seen: Trajectory
    outgoing: list[Message]


class _Match(NamedTuple):
    """How an incoming list continues a snapshot.

    Attributes:
        kept: number of history messages shared.
        front: the part of the view that stays.
        through_view: the list repeats the view, not the history.
        changed: history index -> record, where the caller's bookkeeping changed.
    """

    snapshot: Snapshot
    kept: int
    front: Cut
    through_view: bool
    changed: dict[int, Record]


def root(observations: Observations = "tool") -> Snapshot:
    """The empty beginning of every session."""
    empty = Trajectory((), observations=observations)
    return Snapshot(0, (), View(), (), empty, empty)


def shared(snapshot: Snapshot, incoming: Sequence[Message]) -> int:
    """How many history messages of `snapshot` an incoming list shares with it."""
    return _match(snapshot, incoming).kept


def draft(
    beginning: Snapshot,
    heads: Iterable[Snapshot],
    incoming: Sequence[Message],
    make: Callable[[Message, int], Record],
) -> Draft:
    """The turn that `incoming` opens, on the head that shares most with it.

    Args:
        beginning: the empty snapshot, continued by a list that shares nothing with any head.
        heads: the newest first; of two that share as much the newer is continued.
        incoming: the harness's messages: the history, or the last view, and what is new.
        make: makes the record of a new message at a place of the history.
    """
    best: _Match | None = None
    for head in heads:
        if best is None or len(head.history) > best.kept:
            match = _match(head, incoming)
            if best is None or match.kept > best.kept:
                best = match
    if best is None or best.kept == 0:
        best = _match(beginning, incoming)
    return _draft(best, incoming, make)


def _match(snapshot: Snapshot, incoming: Sequence[Message]) -> _Match:
    kept, changed = common(snapshot.history, incoming)
    front = snapshot.view.cut_history(kept)
    if kept < len(snapshot.history) and snapshot.view.edited:
        seen, looks_changed = common(snapshot.view.records, incoming)
        other = snapshot.view.cut_view(seen)
        if seen == len(snapshot.view) or len(other.view) > len(front.view):
            places = dict(snapshot.view.plain_indices())
            indices = {places[i]: i for i in looks_changed if i in places}
            refreshed = _refreshed(snapshot, indices, incoming)
            return _Match(snapshot, other.kept, other, True, refreshed)
    refreshed = _refreshed(snapshot, {i: i for i in changed}, incoming)
    return _Match(snapshot, kept, front, False, refreshed)


def _refreshed(
    snapshot: Snapshot, places: Mapping[int, int], incoming: Sequence[Message]
) -> dict[int, Record]:
    """Records in the caller's newest form; comparing with them is cheap the next time."""
    return {
        index: snapshot.history[index]._replace(message=copy(incoming[place]))
        for index, place in places.items()
        if not snapshot.history[index].redacted
    }


def _draft(
    match: _Match, incoming: Sequence[Message], make: Callable[[Message, int], Record]
) -> Draft:
    consumed = len(match.front.view) if match.through_view else match.kept
    new = [make(m, i) for i, m in enumerate(incoming[consumed:], start=match.kept)]
    front = match.front
    draft = reopened(match.snapshot, match.kept, front, new, match.changed)
    while not match.through_view and _splits_pair(front, draft):
        front = front.view.cut_pieces(len(front.view.pieces) - 1)
        draft = reopened(match.snapshot, match.kept, front, new, match.changed)
    return replace(draft, outgoing=_outgoing(draft.view, incoming, match.through_view))


def _splits_pair(front: Cut, draft: Draft) -> bool:
    """Whether the front's last edit took the call of a result that now stands behind it.

    Only a rewritten history puts one there: the edit was legal on the one that it was made on.
    """
    pieces = front.view.pieces
    if not pieces or not pieces[-1].policy or front.kept == len(draft.history):
        return False
    if draft.history[front.kept].message.get("role") not in ("tool", "function"):
        return False
    seen, whole = ([r.message for r in records] for records in (draft.view.records, draft.history))
    return any(kind == "result" for kind, _ in loose_ends(seen) - loose_ends(whole))


def reopened(
    base: Snapshot,
    kept: int,
    front: Cut,
    new: Sequence[Record],
    changed: Mapping[int, Record] | None = None,
) -> Draft:
    """A turn on the first `kept` history messages of `base`, seen through `front`.

    Kept messages behind what `front` stands for appear unedited: their edit reached too far.
    """
    changed = changed or {}
    old = (changed.get(i, r) for i, r in enumerate(base.history[:kept]))
    history = (*old, *new)
    view = front.view.replaced(changed) if changed else front.view
    view = view.extended(history[front.kept :])
    kept_view = len(front.view)
    return Draft(
        base=base.version,
        kept=kept,
        kept_pieces=len(front.view.pieces),
        kept_view=kept_view,
        history=history,
        view=view,
        edits=tuple(edit for edit in base.edits if edit.end <= front.kept),
        whole=_retailed(base.whole, min([kept, *changed]), history),
        seen=_retailed(base.seen, _first_changed(view, kept_view, changed), view.records),
        outgoing=[],
    )


def _first_changed(view: View, kept_view: int, changed: Mapping[int, Record]) -> int:
    if not changed:
        return kept_view
    first = min(changed)
    return min((v for v, h in view.plain_indices() if h >= first), default=kept_view)


def _retailed(trajectory: Trajectory, keep: int, records: Sequence[Record]) -> Trajectory:
    """`trajectory` with everything behind its first `keep` messages taken from `records`."""
    length = len(trajectory.messages)
    if keep == length == len(records):
        return trajectory
    return trajectory.edited([Edit(keep, length, tuple(r.seen for r in records[keep:]))])


def committed(
    draft: Draft,
    version: int,
    accepted: Sequence[Accepted],
    reply: Record | None,
    exchange: Exchange | None = None,
) -> Snapshot:
    """The snapshot a turn leaves once its edits are acknowledged and its reply is here.

    Args:
        draft: the turn before its edits.
        version: its number.
        accepted: its edits.
        reply: what the harness gets; None when it gets nothing, or nothing is known of it.
        exchange: a recall, which stands in the view in the reply's place.
    """
    tail = (reply,) if reply else ()
    view = draft.view.fold([(a.edit, a.records) for a in accepted])
    edits = (*draft.edits, *(_recorded(a, draft.view, version) for a in accepted))
    prompt_len = len(view)
    if exchange is None:
        view = view.extended(tail)
    else:
        edits = (*edits, _recalled(exchange, view.history_len, len(tail), version))
        view = view.answered(POLICY, exchange.reply, exchange.results, len(tail))
    seen = draft.seen.edited([a.edit for a in accepted]) if accepted else draft.seen
    history = (*draft.history, *tail)
    return Snapshot(
        version=version,
        history=history,
        view=view,
        edits=edits,
        whole=_retailed(draft.whole, len(draft.history), history),
        seen=_retailed(seen, len(seen.messages), view.records),
        num_behind=len(view) - prompt_len,
        exchange=exchange,
    )


def continued(made: Snapshot, sent: Sequence[Message]) -> Draft:
    """The turn that goes on behind a recall which the harness does not see.

    Args:
        made: the version that ends with it.
        sent: the messages its call was made with.
    """
    exchange = made.exchange
    assert exchange is not None
    records = (exchange.reply, *exchange.results)
    draft = reopened(made, len(made.history), Cut(made.view, made.view.history_len), ())
    return replace(draft, outgoing=[*sent, *(copy(known.message) for known in records)])


def _recalled(exchange: Exchange, at: int, count: int, version: int) -> CommittedEdit:
    num = 1 + len(exchange.results)
    return CommittedEdit(version, at, at + count, num, Mode.AMORTIZE, POLICY, POLICY)


def _recorded(accepted: Accepted, view: View, version: int) -> CommittedEdit:
    edit = accepted.edit
    start, end = view.covers(edit)
    return CommittedEdit(
        version, start, end, len(accepted.records),
        accepted.mode, edit.reason, edit.policy, edit.redact,
    )  # fmt: skip


def redacted(
    snapshot: Snapshot, places: Collection[tuple[int, str]], stubs: Collection[str] = ()
) -> Snapshot:
    """The snapshot with tombstones.

    Args:
        snapshot: a version.
        places: (history index, digest) of the messages that are gone.
        stubs: digests of what stood for such messages in a view.
    """
    gone = {
        index: tombstone(record)
        for index, record in enumerate(snapshot.history)
        if not record.redacted and (index, record.digest) in places
    }
    edited = (r for piece in snapshot.view.pieces if piece.policy for r in piece.records)
    told = {r.digest for r in edited if r.digest in stubs and not r.redacted}
    if not gone and not told:
        return snapshot
    history = tuple(gone.get(i, record) for i, record in enumerate(snapshot.history))
    view = snapshot.view.replaced(gone).buried(told)
    observations = snapshot.whole.observations
    return replace(
        snapshot,
        history=history,
        view=view,
        whole=Trajectory([r.message for r in history], observations=observations),
        seen=Trajectory([r.seen for r in view.records], observations=observations),
    )


def _outgoing(view: View, incoming: Sequence[Message], through_view: bool) -> list[Message]:
    """The caller's own messages where they stand for themselves, copies of ours elsewhere."""
    result: list[Message] = []
    for piece in view.pieces:
        if piece.policy or piece.records[0].redacted:
            result.extend(copy(record.message) for record in piece.records)
        else:
            result.append(incoming[len(result) if through_view else piece.start])
    return result
