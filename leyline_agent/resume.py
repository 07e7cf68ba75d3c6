"""Resuming: a session's state rebuilt from its journal."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from leyline_agent import journal
from leyline_agent.branch import Snapshot, reopened
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import TrajectoryError
from leyline_agent.journal import Event
from leyline_agent.message import Message
from leyline_agent.proposal import Accepted
from leyline_agent.recall.exchange import Exchange, Recalled
from leyline_agent.recall.stubs import unmarked
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.state import State
from leyline_agent.timing.moment import Moment
from leyline_agent.view import Cut, Record, View, restored

__all__ = ["follow", "replay"]

logger = logging.getLogger("leyline.session")


def replay(path: str | os.PathLike[str], pinned: Callable[[Message], bool] | None = None) -> State:
    """The state at the end of a journal; a cut-off last line is removed from the file, and told.

    Raises:
        TrajectoryError: the journal cannot be read, is empty, corrupt, or contradicts itself.
    """
    try:
        loaded = journal.load(path)
    except OSError as error:
        raise TrajectoryError(f"cannot read the journal {os.fspath(path)}: {error}") from error
    if loaded.dropped:
        logger.warning(
            "%s ends in a line that was cut off while it was written; its %d bytes are dropped",
            os.fspath(path), loaded.dropped,
        )  # fmt: skip
        os.truncate(path, loaded.end)
    last = deque(follow(loaded.events, os.fspath(path), pinned), maxlen=1)
    if not last:
        raise TrajectoryError(f"{os.fspath(path)} holds no whole event; there is nothing to resume")
    return last[0][1]


def follow(
    events: Iterable[Event], name: str, pinned: Callable[[Message], bool] | None = None
) -> Iterator[tuple[Event, State]]:
    """Each event of a journal with the state behind it, which the next one changes.

    Raises:
        TrajectoryError: an event does not fit what comes before it; `name` tells which journal.
    """
    rebuilding: _Rebuilding | None = None
    for number, event in enumerate(events, start=1):
        try:
            if rebuilding is None:
                rebuilding = _Rebuilding(event, pinned)
            else:
                rebuilding.add(event)
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            raise TrajectoryError(
                f"{name}, line {number}: this {event['event']!r} event does not fit what comes "
                f"before it ({type(error).__name__}: {error})"
            ) from error
        yield event, rebuilding.state


class _Rebuilding:
    """Follows a journal event by event."""

    def __init__(self, opened: Event, pinned: Callable[[Message], bool] | None) -> None:
        if opened["event"] != "open":
            raise ValueError("a journal begins with an 'open' event")
        floor = opened["mode_floor"]
        self.state = State(opened["session"], opened["observations"], floor and Mode(floor))
        self._pinned = pinned
        self._versions: dict[int, Snapshot] = {0: self.state.beginning}
        self._digests: dict[int, tuple[int, str]] = {}

    def add(self, event: Event) -> None:
        """Take one event into account."""
        if event["event"] == "begin":
            key = (int(event["base"]), str(event["view_digest"]))
            version = int(event["version"])
            self._digests[version] = key
            self.state.last_version = max(self.state.last_version, version)
            self.state.release(*key, version)
        elif event["event"] == "answer":
            self.state.spend(str(event["policy"]), int(event["tokens"]))
            if event["text"] is not None:
                self.state.answer(str(event["key"]), str(event["text"]))
        elif event["event"] == "recall":
            self.state.recalls.on, self.state.recalls.key = event["on"], event["key"]
        elif event["event"] == "fail":
            self.state.counts["failed"] += 1
        elif event["event"] == "commit":
            self._commit(event)

    def _commit(self, event: Event) -> None:
        base, version = self._versions[event["base"]], event["version"]
        self.state.unanswered.pop(self._digests.pop(version), None)
        front = View(base.view.pieces[: event["pieces"]])
        new = [self._record(message) for message in event["messages"]]
        draft = reopened(base, event["kept"], Cut(front, front.history_len), new)
        reply = self._record(event["reply"]) if event["reply"] else None
        accepted = [self._accepted(edit) for edit in event["edits"]]
        exchange = self._exchange(event["exchange"]) if event.get("exchange") else None
        made, _ = self.state.commit(draft, version, accepted, reply, exchange)
        self._versions[version] = made
        receipt = Receipt.model_validate(event["receipt"])
        self.state.receipts.append(receipt)
        if event["edits"] and not (event["messages"] or event["reply"] or exchange):
            self.state.ahead.add(version)
        moments = [Moment.model_validate(told) for told in event.get("moments", ())]
        self.state.ledger.committed(moments, receipt, event["time"])
        counts = self.state.counts
        counts["edits"] += len(accepted)
        counts["skipped"] += len(event["skipped"])
        counts["held"] += sum(len(moment.edits) for moment in moments if moment.held)

    def _accepted(self, told: dict[str, Any]) -> Accepted:
        records = tuple(map(self._record, told["replacement"]))
        if ids := told.get("recall"):
            records = tuple(map(unmarked, records, ids))
        edit = Edit(
            start=told["start"],
            end=told["end"],
            replacement=tuple(record.seen for record in records),
            mode=Mode(told["asked"]),
            reason=told["reason"],
            policy=told["policy"],
            redact=told["redact"],
        )
        return Accepted(edit, records, Mode(told["mode"]), Reason.ASKED)

    def _exchange(self, told: dict[str, Any]) -> Exchange:
        recalled = tuple(Recalled(**one) for one in told["recalled"])
        results = (
            known._replace(recall=one.id if one.found and not known.redacted else "")
            for known, one in zip(map(restored, told["results"]), recalled, strict=True)
        )
        return Exchange(restored(told["reply"]), tuple(results), recalled)

    def _record(self, message: Message) -> Record:
        found = restored(message)
        pinned = self._pinned is not None and not found.redacted and self._pinned(found.message)
        return found._replace(pinned=pinned)
