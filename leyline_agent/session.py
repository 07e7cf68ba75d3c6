"""Sessions: one conversation's history, branches, versions, edits and receipts.

Sans-IO: a session says what to send and is told what came back; who makes the call is not its
business.

    turn = session.begin(messages)
    receipt = turn.finish(client.chat.completions.create(model="m", **turn.request))
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from pydantic import ValidationError

from leyline_agent import accounting, branch, response
from leyline_agent.accounting import Stats
from leyline_agent.adapter import Adapter, CallingAdapter, Commit, Request, as_adapter
from leyline_agent.asking import Asking
from leyline_agent.branch import CommittedEdit, Draft
from leyline_agent.edit import Edit
from leyline_agent.errors import AdapterError, InvalidSpan, StaleSession, TrajectoryError
from leyline_agent.journal import Journal
from leyline_agent.message import Message, copy, view_digest
from leyline_agent.observer import Observers
from leyline_agent.oddity import Oddity, oddities
from leyline_agent.policy import PolicyLike, as_policy
from leyline_agent.proposal import HARNESS, Proposer, Skipped
from leyline_agent.receipt import Receipt
from leyline_agent.resume import replay
from leyline_agent.settings import ResumeOptions, SessionOptions, Settings
from leyline_agent.state import State
from leyline_agent.trajectory import DEFAULT_CHARS_PER_TOKEN, Trajectory
from leyline_agent.turn import Prepared, Turn
from leyline_agent.view import Record, record, tombstone
from leyline_agent.warning import LeylineWarning, warn

__all__ = ["Session"]

logger = logging.getLogger("leyline.session")

MAX_SKIPPED = 1000


class Session:
    """One conversation with a model, edited by policies. Thread-safe.

    Args:
        policies: a policy, its text form, a function, or a list of these; None for no edits.
        adapter: an adapter or the name of an installed one; None for plain OpenAI requests.
        id: the session's name on the wire; made up when None.
        journal: a file to append the session's events to.
        options: see `SessionOptions`.
    """

    def __init__(
        self,
        policies: PolicyLike | None = None,
        adapter: Adapter | str | None = None,
        *,
        id: str | None = None,
        journal: str | os.PathLike[str] | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        settings = Settings.of(options)
        name = id or f"session-{uuid.uuid4().hex[:12]}"
        state = State(name, settings.observations, settings.floor)
        written = None if journal is None else Journal(journal)
        self._configure(state, policies, adapter, settings, written)
        if written:
            parts = [part.name for part in self._proposer.parts]
            written.opened(state, self.adapter.name, parts)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        policies: PolicyLike | None = None,
        adapter: Adapter | str | None = None,
        **options: Unpack[ResumeOptions],
    ) -> Session:
        """The session of a journal, ready for its next turn; the journal is continued.

        Raises:
            TrajectoryError: the journal is corrupt; only a cut-off last line is forgiven.
        """
        session = cls.__new__(cls)
        settings, journal = Settings.of(options), Journal(path)
        session._configure(replay(path, settings.pinned), policies, adapter, settings, journal)
        journal.write("resume")
        return session

    def _configure(
        self,
        state: State,
        policies: PolicyLike | None,
        adapter: Adapter | str | None,
        settings: Settings,
        journal: Journal | None,
    ) -> None:
        self.adapter = as_adapter(adapter)
        policy = as_policy([] if policies is None else policies)
        capabilities, deadline = self.adapter.capabilities, settings.policy_deadline
        self._proposer = Proposer(policy, state.mode_floor, capabilities, deadline)
        self._observers = Observers(settings.observers, journal)
        self._asking = Asking(settings.fulfil, state, journal)
        self._state = state
        self._pinned = settings.pinned
        self._pins: set[tuple[int, str]] = set()
        self._lock = threading.RLock()
        self._num_open = 0
        self._declared: list[Edit] = []
        self._skipped: deque[Skipped] = deque(maxlen=MAX_SKIPPED)
        self._counts = {"failed": 0, "edits": 0, "skipped": 0, "policy_ms": 0.0}
        self._chars_per_token = DEFAULT_CHARS_PER_TOKEN

    def begin(
        self,
        messages: Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        expected_version: int | None = None,
        **request: Any,
    ) -> Turn:
        """Open a turn: find the branch, run the policies, say what to send.

        Args:
            messages: the conversation as the harness has it, or the last view with what is new.
            tools: tool specifications, sent along.
            expected_version: the version the caller believes to be the newest.
            request: further keyword arguments of the call, carried into `turn.request`.

        Raises:
            TrajectoryError: `messages` is empty or holds something that is no message.
            StaleSession: `expected_version` is not the newest.
            LeylineWarning: a policy failed for the first time, where warnings are errors; nothing
                is changed, the same call again goes on without it.
        """
        incoming = response.as_messages(messages)
        if not incoming:
            raise TrajectoryError("no messages; a turn needs at least one")
        with self._lock:
            self._check_version(expected_version)
            prepared = self._prepare(incoming, tools or (), request)
            whole = {**request, "messages": prepared.sent}
            if tools is not None:
                whole["tools"] = tools
            try:
                ready = self.adapter.prepare(whole, prepared.commit)
                self._observers.begun(prepared)
            except BaseException:
                self._release(prepared)
                raise
            self._num_open += 1
            return Turn(self, prepared, ready)

    def edit_ahead(self, tools: Sequence[Mapping[str, Any]] | None = None) -> Receipt | None:
        """Run the policies now, while a tool runs, so that the next turn finds the edits done.

        Returns:
            The receipt; None when the policies have nothing to edit.

        Raises:
            AdapterError: the adapter cannot edit ahead.
        """
        adapter = self.adapter
        if not isinstance(adapter, CallingAdapter) or not adapter.capabilities.edit_ahead:
            raise AdapterError(f"adapter {adapter.name!r} cannot edit ahead of a request")
        with self._lock:
            incoming = [known.message for known in self._state.newest.history]
            if not incoming:
                return None
            prepared = self._prepare(incoming, tools or ())
            if not prepared.proposal.accepted:
                self._release(prepared)
                return None
            request: Request = {"messages": prepared.sent}
            if tools:
                request["tools"] = tools
            self._observers.begun(prepared)
            try:
                found = adapter.edit_ahead(request, prepared.commit)
            except BaseException as error:
                self._fail(prepared, error)
                raise
            return self._commit(prepared, None, found)

    def _prepare(
        self,
        incoming: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        asked: Mapping[str, Any] | None = None,
    ) -> Prepared:
        draft = branch.draft(self._state.beginning, self._state.heads, incoming, self._record)
        notes = self._asking.collect()
        trajectory = self._trajectory(draft, tools)
        declared, self._declared = self._declared, []
        proposal = self._proposer.propose(draft.view, trajectory, declared, draft.kept, notes)
        self._asking.ask(proposal.asks)
        self._skipped.extend(proposal.skipped)
        self._counts["skipped"] += len(proposal.skipped)
        self._counts["policy_ms"] += proposal.seconds * 1e3
        edited = draft.view.fold([(a.edit, a.records) for a in proposal.accepted])
        digest = view_digest(known.digest for known in edited.records)
        commit = Commit(
            session=self.id,
            base_version=draft.base,
            version=self._state.reserve(draft.base, digest),
            view_digest=digest,
            base_len=draft.kept_view,
            edits=tuple(accepted.wire for accepted in proposal.accepted),
        )
        name = self.adapter.name
        prepared = Prepared(draft, proposal, trajectory, declared, commit, name, asked)
        try:
            for text in proposal.warnings:
                warn(f"policy {text}. Further cases are in session.skipped and the log only")
        except LeylineWarning:  # Warnings are errors to this user; the session goes on.
            self._release(prepared)
            raise
        return prepared

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

    def _finish(self, prepared: Prepared, result: Any) -> Receipt:
        message = response.reply(result)
        with self._lock:
            reply = self._record(message, len(prepared.draft.history)) if message else None
            return self._commit(prepared, reply, self._read_receipt(result))

    def _commit(self, prepared: Prepared, reply: Record | None, found: Receipt | None) -> Receipt:
        draft, accepted = prepared.draft, prepared.proposal.accepted
        receipt = accounting.completed(found, prepared.commit, accepted, self._state.receipts)
        made, gone = self._state.commit(draft, prepared.commit.version, accepted, reply)
        self._state.receipts.append(receipt)
        self._counts["edits"] += len(accepted)
        chars = made.seen.chars - (Trajectory([reply.message]).chars if reply else 0)
        self._chars_per_token = accounting.calibrated(self._chars_per_token, chars, receipt.prompt)
        self._observers.committed(prepared, made, gone, receipt)
        return receipt

    def _fail(self, prepared: Prepared, error: BaseException | str | None) -> None:
        with self._lock:
            self._release(prepared)
            self._counts["failed"] += 1
            self._observers.failed(prepared, error)

    def _release(self, prepared: Prepared) -> None:
        commit = prepared.commit
        self._state.release(commit.base_version, commit.view_digest, commit.version)
        self._declared = [*prepared.declared, *self._declared]

    def _read_receipt(self, result: Any) -> Receipt | None:
        """The engine's receipt; one that cannot be read must not cost the reply."""
        body = response.as_dict(result)
        if body is None:
            return None
        try:
            found = self.adapter.receipt(body)
        except (AdapterError, ValidationError) as error:
            logger.warning("session %s: the receipt cannot be read: %s", self.id, error)
            found = None
        usage = response.usage(body)
        if usage is None or (found is not None and found.completion):
            return found
        counted = Receipt.from_usage(usage)
        return found.model_copy(update={"completion": counted.completion}) if found else counted

    def edit(self, edit: Edit) -> None:
        """Declare an edit for the next turn, in indices of `view`. Checked there like a policy's.

        It goes before the policies' edits, and stays declared until a turn with it is answered.
        """
        with self._lock:
            self._declared.append(replace(edit, policy=edit.policy or HARNESS))

    def pin(self, *indices: int) -> None:
        """Let no edit touch these messages of `history` from now on.

        Raises:
            InvalidSpan: there is no such message yet.
        """
        with self._lock:
            history = self._state.newest.history
            for index in indices:
                if not 0 <= index < len(history):
                    raise InvalidSpan(
                        f"cannot pin message {index}; the history has {len(history)} messages"
                    )
                self._pins.add((index, history[index].digest))

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

    def _check_version(self, expected: int | None) -> None:
        if expected is not None and expected != self.version:
            raise StaleSession(
                f"session {self.id!r} is at version {self.version}, not {expected}; read its view "
                "again before you edit it"
            )

    @property
    def id(self) -> str:
        """The session's name on the wire."""
        return self._state.id

    @property
    def is_idle(self) -> bool:
        """Whether no turn waits for its answer."""
        return self._num_open == 0

    @property
    def version(self) -> int:
        """The version committed last; 0 before the first."""
        return self._state.newest.version

    @property
    def history(self) -> list[Message]:
        """Copies of every message of the newest version, unedited; tombstones where redacted."""
        return [copy(known.message) for known in self._state.newest.history]

    @property
    def view(self) -> list[Message]:
        """Copies of what the model saw in the newest version, its reply included."""
        return [copy(known.message) for known in self._state.newest.view.records]

    @property
    def edits(self) -> tuple[CommittedEdit, ...]:
        """The edits that made the newest version's view, oldest first."""
        return self._state.newest.edits

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """The receipts of all finished turns, oldest first."""
        return tuple(self._state.receipts)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The last policies and edits that were not taken, and why."""
        return tuple(self._skipped)

    @property
    def oddities(self) -> tuple[Oddity, ...]:
        """Messages of the newest history that policies can make little or nothing of, and why."""
        return tuple(oddities(self._state.newest.whole))

    def shared(self, messages: Sequence[Any]) -> int:
        """How many leading messages of some branch's history `messages` repeats."""
        incoming = response.as_messages(messages)
        with self._lock:
            heads = self._state.heads
        return max((branch.shared(head, incoming) for head in heads), default=0)

    def stats(self) -> Stats:
        """Totals over all finished turns."""
        with self._lock:
            return accounting.total(self._state.receipts, **self._counts)

    def __repr__(self) -> str:
        return f"Session({self.id!r}, version={self.version})"
