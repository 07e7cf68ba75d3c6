"""The engine's side of a session: versions, their messages and their cached sequences.

A version is one acknowledged commit. A commit names the version it edits (its base), so branches
and retries need no state but this. The newest few are kept; older ones only cost what the newer
ones no longer share.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline_agent.message import Message
from leyline_agent.receipt import Receipt
from leyline_agent.serving.render import Replies
from leyline_agent.serving.work import Cached
from leyline_agent.versions import Versions

__all__ = ["EngineSession", "SessionStore", "Version"]

KEPT_VERSIONS = 4
MAX_SESSIONS = 1024


@dataclass
class Version:
    """One acknowledged commit.

    Attributes:
        number: the version's number.
        base: the version it was made from.
        digest: the view digest the client sent, "" when none.
        messages: the view with its reply; None for a token-level session, or once redacted.
        sequence: tokens and KV, prompt and reply; empty once evicted.
        prompt_len: tokens of the prompt.
        receipt: what it cost.
        tools: the tools the view was rendered with.
        pending: ids sampled that no KV is held of: nothing was computed behind the last one.
    """

    number: int
    base: int
    digest: str
    messages: Sequence[Message] | None
    sequence: Cached
    prompt_len: int
    receipt: Receipt
    tools: Sequence[Mapping[str, Any]] = ()
    pending: tuple[int, ...] = ()
    evicted: bool = False

    def evict(self) -> None:
        """Give up the KV; the version stays known."""
        self.sequence.release()
        self.evicted = True


@dataclass
class EngineSession(Versions[Version]):
    """A session of one tenant. Once dropped it holds nothing and takes nothing more."""

    tenant: str
    id: str
    versions: OrderedDict[int, Version] = field(default_factory=OrderedDict)
    replies: Replies = field(default_factory=Replies)
    receipts: list[Receipt] = field(default_factory=list)
    dropped: bool = False

    def add(self, version: Version) -> None:
        """Record a commit; the oldest version is dropped when there are too many.

        A first commit under a number that another has already begins the session anew.

        Raises:
            StaleSession: another commit has the number, made while this one was computed.
        """
        if self.dropped:  # while the commit was being computed
            version.sequence.release()
            return
        held = self.versions.get(version.number)
        if self.has_other(version.number, version):
            if version.base:
                version.sequence.release()
                raise self.taken(version.number)
            self._release_all()
        elif held is not None:
            self.versions.pop(version.number).sequence.release()
        self.versions[version.number] = version
        self.receipts.append(version.receipt)
        while len(self.versions) > KEPT_VERSIONS:
            _, oldest = self.versions.popitem(last=False)
            oldest.sequence.release()

    def drop(self) -> None:
        """Drop every version and its KV."""
        self._release_all()
        self.dropped = True

    def _release_all(self) -> None:
        for version in self.versions.values():
            version.sequence.release()
        self.versions.clear()


class SessionStore:
    """Sessions by tenant and id, least recently used first."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self.max_sessions = max_sessions
        self._sessions: OrderedDict[tuple[str, str], EngineSession] = OrderedDict()

    def __iter__(self) -> Iterator[EngineSession]:
        return iter(list(self._sessions.values()))

    def __len__(self) -> int:
        """How many have a version: one whose first turn was not answered is none yet."""
        return sum(bool(session.versions) for session in self)

    def find(self, tenant: str, session_id: str) -> EngineSession | None:
        """The session, marked as used now."""
        session = self._sessions.get((tenant, session_id))
        if session is not None:
            self._sessions.move_to_end((tenant, session_id))
        return session

    def open(self, tenant: str, session_id: str) -> EngineSession:
        """The session, made if need be."""
        session = self.find(tenant, session_id)
        if session is None:
            session = EngineSession(tenant, session_id)
            self._sessions[tenant, session_id] = session
            while len(self._sessions) > self.max_sessions:
                _, oldest = self._sessions.popitem(last=False)
                oldest.drop()
        return session

    def drop(self, tenant: str, session_id: str) -> bool:
        """Forget a session; whether there was one."""
        session = self._sessions.pop((tenant, session_id), None)
        if session is not None:
            session.drop()
        return session is not None

    def give_up(self, last: Cached | None) -> Iterator[None]:
        """Release KV step by step, cheapest first.

        First versions that newer ones have replaced, then whole sessions, least recently used
        first, and `last` the sequence being edited. A version whose KV is gone stays known: its
        next turn is an ordinary prefill.
        """
        held = [(s, v) for s in self for v in s.versions.values() if not v.evicted]
        stale = [v for s, v in held if v is not s.newest]
        newest = [v for s, v in held if v is s.newest]
        for version in sorted([*stale, *newest], key=lambda v: v.sequence is last):
            version.evict()
            yield
