"""What a wrapped function was given, and what it leaves behind."""

from __future__ import annotations

import os
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from leyline_agent.adapter import Adapter, as_adapter
from leyline_agent.errors import LeylineError
from leyline_agent.journal import check_path
from leyline_agent.policy import Policy
from leyline_agent.session import Session
from leyline_agent.settings import SessionOptions
from leyline_agent.wrapping.pool import MAX_SESSIONS, SessionPool

__all__ = ["Wrapped", "journal_folder"]

MAX_KEPT = 64


@dataclass
class Wrapped:
    """A wrapped function's settings and its traces; the function's attribute `leyline`.

    Attributes:
        name: the function's, the first part of its sessions' names.
        policy, options: as for `Session`.
        given_adapter: an adapter, or the name of one that is made on first use.
        journal: the folder of the sessions' journals.
        sessions: the last sessions, the newest last.
        bypassed: the last calls that went out unedited, each with the reason.
        told: whether it was said that edits cannot reach a model from here.
    """

    name: str
    policy: Policy
    given_adapter: Adapter | str | None = None
    journal: Path | None = None
    options: SessionOptions = field(default_factory=SessionOptions)
    sessions: deque[Session] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    bypassed: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_KEPT))
    told: bool = False
    _adapter: Adapter | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def adapter(self) -> Adapter:
        """The adapter; made on first use, as it may load a model."""
        with self._lock:
            if self._adapter is None:
                self._adapter = as_adapter(self.given_adapter)
            return self._adapter

    def pool(self, *, max_sessions: int = MAX_SESSIONS, anew: bool = False) -> SessionPool:
        """An empty pool of sessions with these settings; its options as there."""
        redacts = self.policy.redacts
        return SessionPool(self._make_session, max_sessions, anew=anew, redacts=redacts)

    def _make_session(self) -> Session:
        id = f"{self.name}-{uuid.uuid4().hex[:12]}"
        journal = self.journal / f"{id}.jsonl" if self.journal else None
        session = Session(self.policy, self.adapter, id=id, journal=journal, **self.options)
        self.sessions.append(session)
        return session


def journal_folder(journal: str | os.PathLike[str] | None) -> Path | None:
    """The folder that each session's journal is written in.

    Raises:
        LeylineError: it is a file, in one, or no path.
    """
    if journal is None:
        return None
    folder = check_path(journal)
    if folder.exists() and not folder.is_dir():
        raise LeylineError(f"journal {folder} is a file; name a folder, each session writes a file")
    return folder
