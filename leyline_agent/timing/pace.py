"""The pace of a session: which edits of a turn are made when, and the edits ahead of a call."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from leyline_agent.adapter import Adapter, CallingAdapter
from leyline_agent.branch import Draft
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, check
from leyline_agent.errors import EditError
from leyline_agent.proposal import Accepted, Proposal
from leyline_agent.state import State
from leyline_agent.timing.costs import learned
from leyline_agent.timing.decision import Situation, at_once
from leyline_agent.timing.moment import Moment
from leyline_agent.timing.pending import Pending, pending
from leyline_agent.timing.timing import Timing, as_timing
from leyline_agent.trajectory import Trajectory

if TYPE_CHECKING:
    from leyline_agent.branch import Snapshot
    from leyline_agent.receipt import Receipt
    from leyline_agent.state import Gone
    from leyline_agent.turn import Prepared

__all__ = ["Busy", "Pace"]

logger = logging.getLogger("leyline.session")

LOOP_PATIENCE = 0.2
"""Seconds for which a call may hold up an event loop that waits for edits ahead."""

Tools = Sequence[Mapping[str, Any]]


@runtime_checkable
class Busy(Protocol):
    """An adapter that knows how much its engine has to do."""

    def queue(self) -> int:
        """Requests that run or wait at the engine."""
        ...


class Pace:
    """Splits a session's proposals, and edits ahead while a tool runs. An observer of its turns.

    Args:
        timing: decides; None to make every edit with the call it is proposed for.
        adapter: the session's.
        state: the session's; its ledger is kept here.
        edit_ahead: `Session.edit_ahead`.
    """

    def __init__(
        self,
        timing: Timing | str | None,
        adapter: Adapter,
        state: State,
        edit_ahead: Callable[[Tools | None], object],
    ) -> None:
        self._timing = as_timing(timing)
        self._adapter = adapter
        self._state = state
        self._edit_ahead = edit_ahead
        self._running: list[threading.Thread] = []
        self._has_failed = False

    def split(
        self,
        proposal: Proposal,
        draft: Draft,
        trajectory: Trajectory,
        declared: Sequence[Edit],
        asked: Mapping[str, Any] | None,
    ) -> Proposal:
        """The proposal with the edits that are to be made now; `held` has the others.

        Args:
            proposal: every edit of the turn.
            draft: the turn before its edits.
            trajectory: the same, as policies see it.
            declared: the edits that the harness declared for it.
            asked: what the call is made with; None while a tool runs.
        """
        if self._timing is None or not proposal.accepted:
            return proposal
        places = {(edit.start, edit.end) for edit in declared}
        found = pending(proposal.accepted, trajectory, draft.kept_view, places)
        moments = self._decided(self._timing, found, trajectory, draft.kept_view, asked)
        held = {(edit.start, edit.end) for m in moments if m.held for edit in m.edits}
        taken: list[Accepted] = []
        later: list[Accepted] = []
        for one in proposal.accepted:
            (later if (one.edit.start, one.edit.end) in held else taken).append(one)
        try:
            check([one.edit for one in taken], trajectory.messages, trajectory.pinned)
        except EditError:
            moments = at_once(found, "they are legal together only", asked is None)
            taken, later = list(proposal.accepted), []
        return replace(proposal, accepted=tuple(taken), held=tuple(later), moments=moments)

    def _decided(
        self,
        timing: Timing,
        found: Sequence[Pending],
        trajectory: Trajectory,
        known: int,
        asked: Mapping[str, Any] | None,
    ) -> tuple[Moment, ...]:
        adapter, ledger = self._adapter, self._state.ledger
        keeps_sessions = bool(adapter.capabilities.modes - {Mode.FORGET})
        prices = timing.prices_of(adapter.name, str((asked or {}).get("model") or ""))
        queue = adapter.queue() if asked is None and isinstance(adapter, Busy) else 0
        situation = Situation(
            known=sum(trajectory.tokens([message]) for message in trajectory.messages[:known]),
            tokens=trajectory.tokens(),
            tool_runs=asked is None,
            calls_tools=bool(trajectory.tool_calls),
            tool_missed=ledger.tool_missed,
            cold="" if keeps_sessions else ledger.cold(timing.clock(), prices.ttl),
            context=timing.context,
        )
        costs = learned(self._state.receipts, adapter.capabilities, prices, queue)
        try:
            return timing.decide(found, situation, costs)
        except Exception as error:  # A subclass is a user's code; it must not cost the turn.
            logger.exception("timing %r raised; every edit is made at once", timing)
            why = f"{type(timing).__name__} raised {type(error).__name__}"
            return at_once(found, why, asked is None)

    def join(self) -> None:
        """Wait for the edits ahead that are being made; on an event loop not for long.

        Whoever does not wait goes on from the version before, and makes the edits itself.
        """
        patience = LOOP_PATIENCE if _on_event_loop() else None
        for thread in self._running[:]:
            thread.join(patience)
            if not thread.is_alive():
                self._running.remove(thread)

    def begun(self, prepared: Prepared) -> None:
        """Nothing to do."""

    def failed(self, prepared: Prepared, error: BaseException | str | None) -> None:
        """Nothing to do."""

    def committed(self, prepared: Prepared, made: Snapshot, gone: Gone, receipt: Receipt) -> None:
        """Remember the call; and while its tool runs, edit ahead of the next one."""
        if self._timing is None:
            return
        self._state.ledger.committed(prepared.proposal.moments, receipt, self._timing.clock())
        if prepared.asked is not None and made.seen.pending and self._can_edit_ahead:
            tools = prepared.trajectory.tools or None
            # In the caller's context: what observers make of it belongs to the caller's trace.
            run, name = contextvars.copy_context().run, "leyline-edit-ahead"
            thread = threading.Thread(target=run, args=(self._ahead, tools), name=name)
            self._running.append(thread)
            thread.start()

    def _ahead(self, tools: Tools | None) -> None:
        try:
            self._edit_ahead(tools)
        except Exception as error:  # The next call makes the same edits itself.
            level = logging.DEBUG if self._has_failed else logging.WARNING
            self._has_failed = True
            told = f"{type(error).__name__}: {error}"
            logger.log(level, "edits while a tool runs failed, the next call makes them: %s", told)

    @property
    def _can_edit_ahead(self) -> bool:
        return isinstance(self._adapter, CallingAdapter) and self._adapter.capabilities.edit_ahead


def _on_event_loop() -> bool:
    """Whether this thread runs an event loop, which others share."""
    asyncio = sys.modules.get("asyncio")  # Not imported, no loop runs.
    try:
        return asyncio is not None and asyncio.get_running_loop() is not None
    except RuntimeError:
        return False
