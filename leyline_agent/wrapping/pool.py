"""Pools: which session a conversation belongs to, told by its history alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyline_agent.message import Message, digest, view_digest
from leyline_agent.response import as_messages
from leyline_agent.session import Session
from leyline_agent.turn import Turn

__all__ = ["SessionPool"]

MAX_SESSIONS = 64
"""Conversations kept apart at once; the one unused longest is forgotten first."""


class SessionPool:
    """Finds the session that an incoming list of messages continues, or makes one. Thread-safe.

    A list continues a session when it shares everything up to the task with it; a sub-agent with
    a task of its own gets a session of its own.

    Sessions are looked up by a digest of that opening, so their number costs nothing; of those
    with the same opening, one that ends with the list's last reply is tried first.

    Args:
        make: makes a session.
        max_sessions: how many are kept.
        anew: a list that ends with its task begins a conversation though another began alike, as
            where one task is tried many times; otherwise it is that one, asked again.
        redacts: whether a policy of the sessions does; see `Policy.redacts`.
    """

    def __init__(
        self,
        make: Callable[[], Session],
        max_sessions: int = MAX_SESSIONS,
        *,
        anew: bool = False,
        redacts: bool = False,
    ) -> None:
        self.redacts = redacts
        self._make = make
        self._max_sessions = max_sessions
        self._anew = anew
        self._openings: dict[Session, set[str]] = {}  # the session used last is the last
        self._by_opening: dict[str, list[Session]] = {}
        self._beginning: Counter[Session] = Counter()
        self._lock = threading.Lock()

    @property
    def last(self) -> Session | None:
        """The session used last."""
        return next(reversed(self._openings), None)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions kept, the one used last at the end."""
        with self._lock:
            return tuple(self._openings)

    def begin(
        self,
        messages: Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **request: Any,
    ) -> Turn:
        """Open a turn in the session these messages continue. Raises what `Session.begin` does."""
        incoming = as_messages(messages)
        opening = _opening(incoming)
        key = _key(incoming[:opening])
        with self._lock:
            session = self._find(incoming, opening, key)
            self._use(session, key)
            self._beginning[session] += 1
        try:
            turn = session.begin(incoming, tools, **request)
        finally:
            with self._lock:
                self._beginning[session] -= 1
                self._beginning += Counter()  # keeps nobody at zero
        sent = turn.request["messages"]
        if any(ours is not theirs for ours, theirs in zip(sent[:opening], incoming, strict=False)):
            with self._lock:  # An edited task may come back as it was sent.
                self._note(session, _key(sent[: _opening(sent)]))
        return turn

    def forget(self, session: Session) -> None:
        """Keep the session no longer; nothing happens when it is not kept."""
        with self._lock:
            self._drop(session)

    def _find(self, incoming: Sequence[Message], opening: int, key: str) -> Session:
        alike = self._by_opening.get(key, [])
        if alike and not (self._anew and len(incoming) <= opening):
            found = _ending(alike, incoming) or _sharing(alike, incoming, opening)
            if found is not None:
                return found
        # One whose first turn another thread is about to open is not empty, though it looks so.
        empty = [
            one
            for one in self._openings
            if one.is_idle and one.version == 0 and not self._beginning[one]
        ]
        for session in empty:
            if session in alike:
                return session  # Its first call failed; this is the retry.
        for session in empty:
            if not session.stats().failed:  # Failures are another conversation's.
                self._drop(session)
                return session
        return self._make()

    def _use(self, session: Session, key: str) -> None:
        self._openings[session] = self._openings.pop(session, set())
        self._note(session, key)
        for old in list(self._openings)[: -self._max_sessions]:
            self._drop(old)

    def _note(self, session: Session, key: str) -> None:
        keys = self._openings.get(session)
        if keys is None:
            return  # Forgotten since.
        alike = self._by_opening.setdefault(key, [])
        if key in keys:
            alike.remove(session)
        keys.add(key)
        alike.append(session)

    def _drop(self, session: Session) -> None:
        for key in self._openings.pop(session, ()):
            left = [other for other in self._by_opening[key] if other is not session]
            if left:
                self._by_opening[key] = left
            else:
                del self._by_opening[key]


def _ending(alike: Sequence[Session], incoming: Sequence[Message]) -> Session | None:
    """The newest session one of whose branches ends with the last reply in `incoming`.

    Behind the same opening that is enough, whatever was rewritten in between.
    """
    for index in range(len(incoming) - 1, -1, -1):
        if incoming[index].get("role") == "assistant":
            break
    else:
        return None
    last = digest(incoming[index])
    return next((session for session in reversed(alike) if _ends(session, index, last)), None)


def _ends(session: Session, index: int, last: str) -> bool:
    """Whether the message at `index` is the last one of a branch, and has this digest."""
    ends = (head.history for head in session._state.heads if len(head.history) == index + 1)
    return any(history[index].digest == last for history in ends)


def _sharing(alike: Sequence[Session], incoming: Sequence[Message], needed: int) -> Session | None:
    """The session that shares most with `incoming`, `needed` messages at least."""
    shared = [session.shared(incoming) for session in alike]
    best = max(range(len(shared)), key=lambda i: (shared[i], i))
    return alike[best] if shared[best] >= needed else None


def _opening(messages: Sequence[Message]) -> int:
    """How many messages tell a conversation from others: all up to the first user message."""
    for index, message in enumerate(messages):
        if message.get("role") == "user":
            return index + 1
    return max(len(messages), 1)


def _key(messages: Sequence[Message]) -> str:
    return view_digest(map(digest, messages))
