"""Observers: told what a session does, in the order in which it happens.

The journal is one, and the only one whose errors reach the caller: a session that should be on
disk and is not must say so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from leyline_agent.journal import Journal
from leyline_agent.warning import LeylineWarning, warn

if TYPE_CHECKING:
    from leyline_agent.branch import Snapshot
    from leyline_agent.receipt import Receipt
    from leyline_agent.state import Gone
    from leyline_agent.turn import Prepared

__all__ = ["Observer", "Observers", "observe", "stop"]

logger = logging.getLogger("leyline.session")

_everywhere: tuple[Observer, ...] = ()
_lock = threading.Lock()


class Observer(Protocol):
    """What is told of turns. Called while the session is locked: be quick, call it back never.

    A turn of which `begun` was told ends in one of the other two, or is abandoned by its caller.
    """

    def begun(self, prepared: Prepared) -> None:
        """A call is about to be made."""
        ...

    def committed(self, prepared: Prepared, made: Snapshot, gone: Gone, receipt: Receipt) -> None:
        """The call was answered.

        Args:
            prepared: the turn as it began.
            made: the version it made.
            gone: what its edits redact.
            receipt: what it cost, and what became of its edits.
        """
        ...

    def failed(self, prepared: Prepared, error: BaseException | str | None) -> None:
        """The call failed or was given up; nothing is committed."""
        ...


def observe(observer: Observer) -> None:
    """Tell an observer of the turns of every session in this process."""
    global _everywhere
    with _lock:
        _everywhere = (*_everywhere, observer)


def stop(observer: Observer) -> None:
    """Tell it of no turn any more; nothing where it was not told."""
    global _everywhere
    with _lock:
        _everywhere = tuple(known for known in _everywhere if known is not observer)


class Observers:
    """Tells a session's observers, and those of the whole process; the journal last of a commit.

    Args:
        others: whose errors are logged, and the first warned of.
        journal: whose errors are raised.
    """

    def __init__(self, others: Sequence[Observer] = (), journal: Journal | None = None) -> None:
        self.journal = journal
        self._others = tuple(others)
        self._has_warned = False

    def begun(self, prepared: Prepared) -> None:
        """A call is about to be made."""
        if self.journal:
            self.journal.begun(prepared)
        self._tell(lambda observer: observer.begun(prepared))

    def committed(self, prepared: Prepared, made: Snapshot, gone: Gone, receipt: Receipt) -> None:
        """The call was answered."""
        self._tell(lambda observer: observer.committed(prepared, made, gone, receipt))
        if self.journal:
            self.journal.committed(prepared, made, gone, receipt)

    def failed(self, prepared: Prepared, error: BaseException | str | None) -> None:
        """The call failed or was given up."""
        self._tell(lambda observer: observer.failed(prepared, error))
        if self.journal:
            self.journal.failed(prepared, error)

    def _tell(self, event: Callable[[Observer], None]) -> None:
        for observer in (*self._others, *_everywhere):
            try:
                event(observer)
            except Exception as error:  # A user's code; the turn goes on.
                logger.exception("observer %r raised", observer)
                self._warn(f"observer {type(observer).__name__} raised {error!r}")

    def _warn(self, text: str) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        try:
            warn(f"{text}. Further cases are in the log only")
        except LeylineWarning:  # Warnings are errors to this user; an observer is no part of it.
            logger.error("%s", text)
