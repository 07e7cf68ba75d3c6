"""What the adapter remembers of sessions: versions, the handles of their KV, sampled ids.

The KV is the server's; a handle names it. Handles that nothing here needs any more are given up
with the session's next request.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline_adapters.vllm.client.rendering import Replies
from leyline_agent.message import Message
from leyline_agent.receipt import Receipt
from leyline_agent.versions import Versions

__all__ = ["Session", "Sessions", "Version"]

KEPT_VERSIONS = 3
"""The newest, the one it was made from, which a retry needs, and one to go back to."""

MAX_RELEASED = 1024


@dataclass(frozen=True)
class Version:
    """One acknowledged commit.

    Attributes:
        number, base: its own number, and that of the version it was made from.
        digest: the view digest the client sent, "" when none.
        messages: the view with its reply; None where it was made of tokens.
        tokens: those whose KV the server holds under `handle`, prompt and reply.
        handle: "" where the server holds nothing for it.
        spliced_from: the first of `tokens` whose KV is spliced; None when none is.
        receipt: what it cost.
        tools: the tools the view was rendered with.
    """

    number: int
    base: int
    digest: str
    messages: Sequence[Message] | None
    tokens: Sequence[int]
    handle: str
    spliced_from: int | None
    receipt: Receipt
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass
class Session(Versions[Version]):
    """A session of one adapter. `lock` is held while it is changed, never over a call."""

    id: str
    versions: OrderedDict[int, Version] = field(default_factory=OrderedDict)
    replies: Replies = field(default_factory=Replies)
    released: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, version: Version) -> None:
        """Record a commit; what it replaces, and the oldest of too many, are given up.

        Raises:
            StaleSession: another commit has the number, made while this one was computed.
        """
        held = self.versions.get(version.number)
        if self.has_other(version.number, version):
            if version.base:
                self.release(version.handle)
                raise self.taken(version.number)
            self.drop()  # a first commit again: the session begins anew
        elif held is not None:
            self.release(self.versions.pop(version.number).handle)
        self.versions[version.number] = version
        while len(self.versions) > KEPT_VERSIONS:
            _, oldest = self.versions.popitem(last=False)
            self.release(oldest.handle)

    def handles(self) -> tuple[str, ...]:
        """Those of every version."""
        return tuple(version.handle for version in self.versions.values() if version.handle)

    def drop(self) -> None:
        """Give up every version."""
        self.release(*self.handles())
        self.versions.clear()

    def release(self, *handles: str) -> None:
        """Handles that the next request tells the server to give up."""
        self.released.extend(handle for handle in handles if handle)
        del self.released[:-MAX_RELEASED]

    def take_released(self) -> tuple[str, ...]:
        """The handles to give up now."""
        taken, self.released = tuple(self.released), []
        return taken


class Sessions:
    """Sessions by id, least recently used first. Thread-safe."""

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def find(self, name: str) -> Session | None:
        """The session, marked as used now."""
        with self._lock:
            found = self._sessions.get(name)
            if found is not None:
                self._sessions.move_to_end(name)
            return found

    def open(self, name: str) -> Session:
        """The session, made if need be; too many, and the server's budget gets the oldest's KV."""
        with self._lock:
            found = self._sessions.setdefault(name, Session(name))
            self._sessions.move_to_end(name)
            while len(self._sessions) > self._most:
                self._sessions.popitem(last=False)
            return found

    def drop(self, name: str) -> Session | None:
        """Forget a session; what was known of it, its handles to be given up."""
        with self._lock:
            found = self._sessions.pop(name, None)
        if found is not None:
            with found.lock:
                found.drop()
        return found

    def __len__(self) -> int:
        return len(self._sessions)
