"""What a session does for a turn: what is prepared before a call, committed or given up after it.

The half of `Session` that its users do not call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leyline_agent import accounting, branch, response
from leyline_agent.adapter import Adapter, Commit, Request
from leyline_agent.branch import Draft, Snapshot
from leyline_agent.edit import Edit
from leyline_agent.message import Message, view_digest
from leyline_agent.observer import Observers
from leyline_agent.proposal import Proposal, Proposer, Skipped
from leyline_agent.recall.exchange import Exchange, Spent
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.settings import Pinned
from leyline_agent.state import State
from leyline_agent.trajectory import Trajectory
from leyline_agent.turn import Prepared
from leyline_agent.view import Record, record, tombstone
from leyline_agent.warning import LeylineWarning, warn

if TYPE_CHECKING:
    from leyline_agent.asking import Asking
    from leyline_agent.recall.keeper import Keeper
    from leyline_agent.timing.pace import Pace

__all__ = ["Turning"]


_UNREAD = "the answer is no reply that can be read"


class Turning:
    """A session's turns. `Session` makes the attributes and holds `_lock` around most calls."""

    adapter: Adapter
    _state: State
    _proposer: Proposer
    _observers: Observers
    _pace: Pace
    _asking: Asking
    _keeper: Keeper | None
    _pinned: Pinned | None
    _pins: set[tuple[int, str]]
    _lock: threading.RLock
    _num_open: int
    _declared: list[Edit]
    _skipped: deque[Skipped]
    _counts: dict[str, float]
    _chars_per_token: float

    @property
    def id(self) -> str:
        """The session's name on the wire."""
        return self._state.id

    @property
    def version(self) -> int:
        """The version committed last; 0 before the first."""
        return self._state.newest.version

    def _request(self, prepared: Prepared) -> Request:
        """What to send; the turn is begun then."""
        whole = {**(prepared.asked or {}), "messages": prepared.sent}
        if prepared.tools is not None:
            whole["tools"] = prepared.tools
        ready = self.adapter.prepare(whole, prepared.commit)
        self._observers.begun(prepared)
        return ready

    def _prepare(
        self,
        incoming: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        asked: Mapping[str, Any] | None = None,
    ) -> Prepared:
        shown = self._declaring(tools)
        draft = branch.draft(self._state.beginning, self._state.heads, incoming, self._record)
        notes = self._asking.collect()
        trajectory = self._trajectory(draft, tools or ())
        declared = self._declared
        proposal = self._proposer.propose(draft.view, trajectory, declared, draft.kept, notes)
        self._declared = []
        self._asking.ask(proposal.asks)
        proposal = self._pace.split(proposal, draft, trajectory, declared, asked)
        if self._keeper:
            proposal = self._keeper.redacting(draft, proposal)
        self._skipped.extend(proposal.skipped)
        self._counts["skipped"] += len(proposal.skipped)
        self._counts["policy_ms"] += proposal.seconds * 1e3
        commit = self._reserved(draft, proposal, draft.kept_view)
        name = self.adapter.name
        prepared = Prepared(draft, proposal, trajectory, declared, commit, name, asked, shown)
        try:
            for text in proposal.warnings:
                warn(f"policy {text}. Further cases are in session.skipped and the log only")
        except LeylineWarning:  # Warnings are errors to this user; the session goes on.
            self._release(prepared)
            raise
        return prepared

    def _reserved(self, draft: Draft, proposal: Proposal, base_len: int) -> Commit:
        edited = draft.view.fold([(a.edit, a.records) for a in proposal.accepted])
        digest = view_digest(known.digest for known in edited.records)
        return Commit(
            session=self.id,
            base_version=draft.base,
            version=self._state.reserve(draft.base, digest),
            view_digest=digest,
            base_len=base_len,
            edits=tuple(accepted.wire for accepted in proposal.accepted),
        )

    def _declaring(
        self, tools: Sequence[Mapping[str, Any]] | None
    ) -> Sequence[Mapping[str, Any]] | None:
        """The tools as the model is shown them."""
        if self._keeper is None:
            return tools
        known = self._state.recalls
        before = known.on
        shown = self._keeper.declared(tools, first=self.version == 0)
        if known.on is not before and (journal := self._observers.journal):
            journal.write("recall", on=known.on, key=known.key)
        return shown

    def _trajectory(self, draft: Draft, tools: Sequence[Mapping[str, Any]]) -> Trajectory:
        whole = draft.whole.configured(
            tools=tuple(tools),
            pinned=self._pinned_in(draft.history),
            chars_per_token=self._chars_per_token,
            answers=self._state.answers,
        )
        if not draft.view.edited:
            return whole
        places = draft.view.plain_indices()
        return draft.seen.configured(
            original=whole,
            tools=whole.tools,
            pinned=frozenset(v for v, h in places if h in whole.pinned),
            chars_per_token=self._chars_per_token,
            answers=self._state.answers,
        )

    def _finish(self, prepared: Prepared, result: Any, spent: Spent) -> Receipt:
        message = response.reply(result)
        with self._lock:
            found = accounting.received(self.adapter, result, self.id)
            if message is None and found is None:
                found = Receipt(reason=Reason.NO_RECEIPT, detail=_UNREAD)
            return self._commit(prepared, message, found, spent)[1]

    def _advance(self, prepared: Prepared, result: Any, spent: Spent) -> Prepared | None:
        """The next call of a turn whose reply was a recall; None when it was not."""
        message = response.reply(result)
        with self._lock:
            if self._keeper is None or message is None or prepared.trajectory.pending:
                return None  # Nothing may come between a call that still runs and its result.
            if not self._keeper.hides(message, spent):
                return None
            found = accounting.received(self.adapter, result, self.id)
            made, _ = self._commit(prepared, message, found, spent, hidden=True)
            spent.usages.append(response.usage(result) or {})
            draft = branch.continued(made, prepared.sent)
            num = len(made.exchange.results) if made.exchange else 0
            commit = self._reserved(draft, Proposal(), draft.kept_view - num)
            return replace(prepared, draft=draft, proposal=Proposal(), declared=(), commit=commit)

    def _may_recall(self, prepared: Prepared) -> bool:
        chosen = (prepared.asked or {}).get("tool_choice")
        return bool(self._keeper and self._keeper.declares(prepared.tools) and chosen != "none")

    def _delivered(self, result: Any, spent: Spent) -> Any:
        if self._keeper is None:
            return result
        from leyline_agent.recall.delivery import delivered

        return delivered(result, spent.usages)

    def _delivery(self, spent: Spent) -> Callable[[Any], Any]:
        if self._keeper is None:
            return lambda chunk: chunk
        from leyline_agent.recall.delivery import Delivery

        return Delivery(spent.usages)

    def _commit(
        self,
        prepared: Prepared,
        message: Message | None,
        found: Receipt | None,
        spent: Spent | None = None,
        *,
        hidden: bool = False,
    ) -> tuple[Snapshot, Receipt]:
        draft, accepted = prepared.draft, prepared.proposal.accepted
        receipt = accounting.completed(found, prepared.commit, accepted, self._state.receipts)
        exchange: Exchange | None = None
        if self._keeper:
            self._keeper.settle(draft, accepted)
            message, exchange = self._keeper.answered(message, spent or Spent(), hidden=hidden)
        reply = self._record(message, len(draft.history)) if message else None
        made, gone = self._state.commit(draft, prepared.commit.version, accepted, reply, exchange)
        self._state.receipts.append(receipt)
        if prepared.asked is None:
            self._state.ahead.add(receipt.version)
        self._counts["edits"] += len(accepted)
        self._counts["held"] += len(prepared.proposal.held)
        behind = made.seen.messages[len(made.seen.messages) - made.num_behind :]
        chars = made.seen.chars - Trajectory(behind).chars
        self._chars_per_token = accounting.calibrated(self._chars_per_token, chars, receipt.prompt)
        self._observers.committed(prepared, made, gone, receipt)
        return made, receipt

    def _fail(self, prepared: Prepared, error: BaseException | str | None) -> None:
        with self._lock:
            self._release(prepared)
            self._counts["failed"] += 1
            self._observers.failed(prepared, error)

    def _release(self, prepared: Prepared) -> None:
        commit = prepared.commit
        self._state.release(commit.base_version, commit.view_digest, commit.version)
        self._declared = [*prepared.declared, *self._declared]

    def _pinned_in(self, history: Sequence[Record]) -> frozenset[int]:
        if self._pinned is None and not self._pins:
            return frozenset()
        return frozenset(
            index
            for index, known in enumerate(history)
            if known.pinned or (index, known.digest) in self._pins
        )

    def _record(self, message: Message, index: int) -> Record:
        made = record(message)
        if (index, made.digest) in self._state.redacted:
            return tombstone(made)
        if self._pinned is not None and self._pinned(made.message):
            return made._replace(pinned=True)
        return made
