"""Pools: which session a conversation belongs to, told by its history alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyline_agent.message import Message
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

    Args:
        make: makes a session.
    """

    def __init__(self, make: Callable[[], Session]) -> None:
        self._make = make
        self._sessions: list[Session] = []
        self._lock = threading.Lock()

    @property
    def last(self) -> Session | None:
        """The session used last."""
        return self._sessions[-1] if self._sessions else None

    def begin(
        self,
        messages: Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **request: Any,
    ) -> Turn:
        """Open a turn in the session these messages continue. Raises what `Session.begin` does."""
        incoming = as_messages(messages)
        with self._lock:
            session = self._find(incoming)
            self._sessions.append(session)
            del self._sessions[:-MAX_SESSIONS]
        return session.begin(incoming, tools, **request)

    def _find(self, incoming: Sequence[Message]) -> Session:
        """The session that shares most with `incoming`, taken out of the list."""
        needed = _opening(incoming)
        shared = [session.shared(incoming) for session in self._sessions]
        best = max(range(len(shared)), key=lambda i: (shared[i], i), default=None)
        if best is not None and shared[best] >= needed:
            return self._sessions.pop(best)
        for place, session in enumerate(self._sessions):
            if session.is_idle and session.version == 0:
                return self._sessions.pop(place)
        return self._make()


def _opening(messages: Sequence[Message]) -> int:
    """How many messages tell a conversation from others: all up to the first user message."""
    for index, message in enumerate(messages):
        if message.get("role") == "user":
            return index + 1
    return max(len(messages), 1)
