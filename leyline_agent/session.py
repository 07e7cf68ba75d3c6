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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from leyline_agent import accounting, branch, response
from leyline_agent.accounting import Stats
from leyline_agent.adapter import (
    Adapter,
    CallingAdapter,
    DelegatingAdapter,
    Request,
    as_adapter,
)
from leyline_agent.asking import Asking
from leyline_agent.branch import CommittedEdit
from leyline_agent.edit import Edit
from leyline_agent.errors import AdapterError, InvalidSpan, StaleSession, TrajectoryError
from leyline_agent.journal import Journal
from leyline_agent.message import Message, copy
from leyline_agent.observer import Observers
from leyline_agent.oddity import Oddity, oddities
from leyline_agent.policy import PolicyLike, as_policy
from leyline_agent.proposal import HARNESS, Proposer, Skipped
from leyline_agent.recall.exchange import POLICY as RECALL
from leyline_agent.recall.options import as_recall
from leyline_agent.receipt import Receipt
from leyline_agent.resume import replay
from leyline_agent.settings import ResumeOptions, SessionOptions, Settings
from leyline_agent.state import State
from leyline_agent.timing.pace import Pace
from leyline_agent.trajectory import DEFAULT_CHARS_PER_TOKEN
from leyline_agent.turn import Turn
from leyline_agent.turning import Turning
from leyline_agent.warning import LeylineWarning, warn

if TYPE_CHECKING:
    from leyline_agent.recall.keeper import Keeper

__all__ = ["Session"]

logger = logging.getLogger("leyline.session")

MAX_SKIPPED = 1000

JOURNAL = "journal"
"""Who is on record where the journal fails."""


class Session(Turning):
    """One conversation with a model, edited by policies. Thread-safe.

    Args:
        policies: a policy, its text form, a function, or a list of these; None for no edits.
        adapter: an adapter or the name of an installed one; None for plain OpenAI requests.
        id: the session's name on the wire; made up when None. For one conversation at a time: two
            that take turns under one name have each other's cached KV given up, and prefill again.
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
            written.on_failure = self._without_journal
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
        journal.on_failure = session._without_journal
        journal.write("resume")
        if session._keeper:
            session._keeper.restore(session._state.heads)
        elif session._state.recalls.on:
            text = "the session had recall and is resumed without: its stubs name what is lost"
            logger.warning("session %s: %s", session.id, text)
            session._skipped.append(Skipped(RECALL, "", "RecallLost", text))
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
        if isinstance(self.adapter, DelegatingAdapter):
            self.adapter, policy = self.adapter.delegated(policy, settings)
        capabilities, deadline = self.adapter.capabilities, settings.policy_deadline
        self._skipped: deque[Skipped] = deque(maxlen=MAX_SKIPPED)
        self._keeper = _keeper(settings, state, self._skipped.append)
        mark = self._keeper.mark if self._keeper else None
        self._proposer = Proposer(policy, state.mode_floor, capabilities, deadline, mark)
        self._pace = Pace(settings.timing, self.adapter, state, self.edit_ahead)
        self._observers = Observers((self._pace, *settings.observers), journal)
        self._asking = Asking(settings.fulfil, state, journal)
        self._state = state
        self._told_of_journal: set[str] = set()
        self._pinned = settings.pinned
        self._pins: set[tuple[int, str]] = set()
        self._lock = threading.RLock()
        self._num_open = 0
        self._declared: list[Edit] = []
        self._counts = state.counts
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
            CallRefused: a policy that redacts raised.
            LeylineWarning: a policy failed for the first time, where warnings are errors; nothing
                is changed, the same call again goes on without it.
        """
        incoming = response.as_messages(messages)
        if not incoming:
            raise TrajectoryError("no messages; a turn needs at least one")
        self._pace.join()
        with self._lock:
            self._check_version(expected_version)
            prepared = self._prepare(incoming, tools, request)
            try:
                ready = self._request(prepared)
            except BaseException:
                self._release(prepared)
                raise
            self._num_open += 1
            return Turn(self, prepared, ready)

    def edit_ahead(self, tools: Sequence[Mapping[str, Any]] | None = None) -> Receipt | None:
        """Run the policies now, while a tool runs, so that the next turn finds the edits done.

        Returns:
            The receipt; None when the policies have nothing to edit, or a call came in between.

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
            prepared = self._prepare(incoming, tools)
            if not prepared.proposal.accepted:
                self._release(prepared)
                return None
            request: Request = {"messages": prepared.sent}
            if prepared.tools:
                request["tools"] = prepared.tools
            self._observers.begun(prepared)
        try:  # Unlocked: other conversations look for their session meanwhile.
            found = adapter.edit_ahead(request, prepared.commit)
        except BaseException as error:
            self._fail(prepared, error)
            raise
        with self._lock:
            if self._state.newest.version != prepared.commit.base_version:
                self._fail(prepared, "overtaken")  # A call did not wait, and has made them itself.
                return None
            return self._commit(prepared, None, found)[1]

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
            AdapterError: the provider edits by itself, and knows of no pins.
        """
        if self.adapter.capabilities.edits_itself:
            raise AdapterError(
                "what the provider clears cannot be pinned; make the adapter without server_side"
            )
        with self._lock:
            history = self._state.newest.history
            for index in indices:
                if not 0 <= index < len(history):
                    raise InvalidSpan(
                        f"cannot pin message {index}; the history has {len(history)} messages"
                    )
                self._pins.add((index, history[index].digest))

    def _without_journal(self, kind: str, text: str) -> None:
        """The journal failed; the session goes on, and the user learns of it."""
        self._skipped.append(Skipped(JOURNAL, "", kind, text))
        logger.error("session %s: %s", self.id, text)
        if kind in self._told_of_journal:
            return
        self._told_of_journal.add(kind)
        with suppress(LeylineWarning):  # Warnings are errors to this user; the edits are not lost.
            warn(f"{text}. It is in session.skipped")

    def _check_version(self, expected: int | None) -> None:
        if expected is not None and expected not in self._state.current:
            raise StaleSession(
                f"session {self.id!r} is at version {self.version}, not {expected}; read its view "
                "again before you edit it"
            )

    @property
    def is_idle(self) -> bool:
        """Whether no turn waits for its answer."""
        return self._num_open == 0

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
            known = self._state.recalls
            recalls = {"hidden": known.hidden, "recalls": known.recalls, "repeated": known.repeated}
            receipts, ahead = self._state.receipts, self._state.ahead
            return accounting.total(receipts, ahead, **recalls, **self._counts)

    def __repr__(self) -> str:
        return f"Session({self.id!r}, version={self.version})"


def _keeper(settings: Settings, state: State, note: Callable[[Skipped], None]) -> Keeper | None:
    """What keeps the session's recalls; None where there are none."""
    asked = as_recall(settings.recall)
    if asked is None:
        return None
    from leyline_agent.recall.keeper import Keeper  # sqlite, only where it is used.

    return Keeper(asked, state.recalls, state.id, note)
