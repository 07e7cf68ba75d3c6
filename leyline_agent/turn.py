"""Turns: one call of the model, from what to send to what came back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leyline_agent.adapter import Commit, Request
from leyline_agent.branch import Draft
from leyline_agent.edit import Edit
from leyline_agent.edit import apply as apply_edits
from leyline_agent.errors import LeylineError
from leyline_agent.message import Message, copy
from leyline_agent.proposal import Proposal, Skipped
from leyline_agent.question import Ask
from leyline_agent.recall.exchange import Spent
from leyline_agent.receipt import Receipt
from leyline_agent.timing.moment import Moment
from leyline_agent.trajectory import Trajectory

if TYPE_CHECKING:
    from leyline_agent.session import Session

__all__ = ["Prepared", "Turn"]


@dataclass(frozen=True)
class Prepared:
    """What a session remembers of a turn until its answer.

    Attributes:
        draft: the turn before its edits.
        proposal: the edits taken and refused.
        trajectory: what the policies saw.
        declared: the edits the harness had declared for this turn.
        commit: what the engine is told.
        adapter: the name of the adapter it goes through.
        asked: what the call is made with besides messages and tools; None for edits ahead of one.
        tools: the tools that the model is shown; None when there are none.
    """

    draft: Draft
    proposal: Proposal
    trajectory: Trajectory
    declared: Sequence[Edit]
    commit: Commit
    adapter: str = ""
    asked: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None

    @property
    def sent(self) -> list[Message]:
        """The edited view as it goes out: copies of what edits put there, the caller's messages."""
        accepted = self.proposal.accepted
        edits = [one.sent for one in accepted]
        sent = apply_edits(edits, self.draft.outgoing)
        ours = {id(record.message) for one in accepted for record in one.records}
        return [copy(message) if id(message) in ours else message for message in sent]


class Turn:
    """One call of the model. Made by `Session.begin`.

    Attributes:
        request: keyword arguments of the call: the edited messages, the tools, what the adapter
            adds. Unedited messages are the caller's own dictionaries.
    """

    def __init__(self, session: Session, prepared: Prepared, request: Request) -> None:
        self.request = request
        self._session = session
        self._prepared = prepared
        self._spent = Spent()
        self._open = True

    @property
    def session(self) -> Session:
        """The session it is a turn of."""
        return self._session

    @property
    def commit(self) -> Commit:
        """What the adapter tells the engine."""
        return self._prepared.commit

    @property
    def trajectory(self) -> Trajectory:
        """What the policies saw."""
        return self._prepared.trajectory

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits taken this turn, in indices of `trajectory.messages`."""
        return tuple(accepted.edit for accepted in self._prepared.proposal.accepted)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Policies and edits not taken this turn, and why."""
        return self._prepared.proposal.skipped

    @property
    def asks(self) -> tuple[Ask, ...]:
        """What the policies want a model to be asked; they want it every turn until it is."""
        return self._prepared.proposal.asks

    @property
    def held(self) -> tuple[Edit, ...]:
        """Edits left for a later moment, in the same indices; policies propose them again."""
        return tuple(accepted.edit for accepted in self._prepared.proposal.held)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """When the edits taken and held are made, and why; empty where there is no timing."""
        return self._prepared.proposal.moments

    def place(self, edit: Edit) -> tuple[int, int]:
        """The half-open range of the history that one of its edits, taken or held, stands for."""
        return self._prepared.draft.view.covers(edit)

    @property
    def is_open(self) -> bool:
        """Whether the turn waits for its answer."""
        return self._open

    @property
    def may_advance(self) -> bool:
        """Whether the reply may be a recall; if not, a stream of it need not be held."""
        return self._session._may_recall(self._prepared)

    def advance(self, result: Any) -> bool:
        """Whether the reply was not meant for the harness; `request` is then what to send next.

            response = call(turn.request)
            while turn.advance(response):
                response = call(turn.request)
            receipt = turn.finish(response)
            return turn.delivered(response)

        Args:
            result: as for `finish`.

        Raises:
            LeylineError: the turn is closed already.
            OSError: the journal cannot be written.
        """
        with self._session._lock:
            self._check_open()
            ahead = self._session._advance(self._prepared, result, self._spent)
            if ahead is None:
                return False
            self._prepared = ahead
            self.request = self._session._request(ahead)
            return True

    def delivered(self, result: Any) -> Any:
        """The response that finished the turn, as the harness is to get it.

        That is without calls of the recall tool, and with the usage of all calls of the turn; the
        response itself where it has none of the former and is the only one. A dictionary is
        copied, an object of a library is changed.
        """
        return self._session._delivered(result, self._spent)

    def delivery(self) -> Callable[[Any], Any]:
        """`delivered` for the chunks of a stream, to be called with each in turn."""
        return self._session._delivery(self._spent)

    def finish(self, result: Any = None) -> Receipt:
        """Commit the turn: the engine has answered.

        Args:
            result: a chat completion (dictionary, openai or litellm object), an assistant
                message, or its text. Of anything else only the request is committed; the reply
                becomes known when the harness sends it back.

        Raises:
            LeylineError: the turn is closed already.
            OSError: the journal cannot be written; the turn is committed all the same.
        """
        self._close()
        return self._session._finish(self._prepared, result, self._spent)

    def fail(self, error: BaseException | str | None = None) -> None:
        """Give the turn up: nothing is committed, the base version stays.

        Raises:
            LeylineError: the turn is closed already.
        """
        self._close()
        self._session._fail(self._prepared, error)

    def _close(self) -> None:
        with self._session._lock:
            self._check_open()
            self._open = False
            self._session._num_open -= 1

    def _check_open(self) -> None:
        if not self._open:
            raise LeylineError(
                f"turn {self.commit.version} of session {self.commit.session!r} is closed "
                "already; begin a new one"
            )
