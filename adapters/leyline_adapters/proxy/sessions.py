"""Sessions: whose conversation a call belongs to.

Tenants share nothing. Inside a tenant a call that names a session, by header or path, is of that
name; inside a name, and among calls without one, conversations are told apart by their history.
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from leyline_adapters.proxy.calls import Call
from leyline_adapters.proxy.dialect import Dialect
from leyline_agent.adapter import Adapter
from leyline_agent.errors import TrajectoryError
from leyline_agent.policy import Policy
from leyline_agent.session import Session
from leyline_agent.settings import ResumeOptions, SessionOptions
from leyline_agent.turn import Turn
from leyline_agent.wrapping.pool import SessionPool

__all__ = ["MAX_SESSIONS", "Sessions"]

logger = logging.getLogger("leyline.proxy")

MAX_SESSIONS = 512

_Place = tuple[str, str, str]
"""Tenant, name, API."""


@dataclass
class Sessions:
    """The sessions of all tenants.

    Attributes:
        policy, options: as for `Session`.
        journal: the folder of the journals, one below it a tenant; None for none.
        max_sessions: how many are kept; of the tenant with the most, the one unused longest goes.
    """

    policy: Policy
    options: SessionOptions = field(default_factory=SessionOptions)
    journal: Path | None = None
    max_sessions: int = MAX_SESSIONS
    _pools: dict[_Place, SessionPool] = field(default_factory=dict)
    _used: dict[Session, _Place] = field(default_factory=dict)  # the one used last is the last
    _named: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._used)

    def begin(
        self,
        call: Call,
        dialect: Dialect,
        adapter: Adapter,
        messages: Sequence[Any],
        tools: Sequence[Mapping[str, Any]] | None,
        **request: Any,
    ) -> Turn:
        """Open a turn of the session these messages continue. Raises what `Session.begin` does."""
        place = (call.tenant, call.name, dialect.api)
        pool = self._pools.get(place)
        if pool is None:
            make = self._maker(call.tenant, call.name, adapter)
            pool = self._pools[place] = SessionPool(make, self.max_sessions, anew=True)
        try:
            return pool.begin(messages, tools, **request)
        finally:
            if pool.last is None:
                self._close(place)
            else:
                self._use(pool.last, place)

    def of(self, tenant: str) -> list[Session]:
        """A tenant's sessions, the one used last first."""
        return [session for session, place in reversed(self._used.items()) if place[0] == tenant]

    def find(self, tenant: str, id: str) -> Session | None:
        """A tenant's session by its id; None when it has none of that id."""
        return next((session for session in self.of(tenant) if session.id == id), None)

    def _use(self, session: Session, place: _Place) -> None:
        self._used.pop(session, None)
        self._used[session] = place
        while len(self._used) > self.max_sessions:
            self._forget()

    def _forget(self) -> None:
        [(most, _)] = Counter(place[0] for place in self._used.values()).most_common(1)
        theirs = [session for session, place in self._used.items() if place[0] == most]
        old = next((session for session in theirs if session.is_idle), theirs[0])
        place = self._used.pop(old)
        self._pools[place].forget(old)
        if not self._pools[place].sessions:
            self._close(place)

    def _close(self, place: _Place) -> None:
        del self._pools[place]
        if all(other[:2] != place[:2] for other in self._pools):
            del self._named[place[:2]]

    def _maker(self, tenant: str, name: str, adapter: Adapter) -> Callable[[], Session]:
        def make() -> Session:
            self._named[tenant, name] += 1
            number = self._named[tenant, name]
            id = name if number == 1 else f"{name}.{number}"
            id = id if name else f"proxy-{uuid.uuid4().hex[:12]}"
            return self._made(tenant, id, adapter)

        return make

    def _made(self, tenant: str, id: str, adapter: Adapter) -> Session:
        if self.journal is None:
            return Session(self.policy, adapter, id=id, **self.options)
        folder = self.journal / (tenant[:16] or "common")
        path = folder / f"{quote(id, safe='')}.jsonl"
        if path.exists():
            try:
                return Session.resume(path, self.policy, adapter, **_resumed(self.options))
            except TrajectoryError as error:
                path = folder / f"{quote(id, safe='')}.{uuid.uuid4().hex[:12]}.jsonl"
                logger.warning("session %s begins anew, in %s: %s", id, path.name, error)
        return Session(self.policy, adapter, id=id, journal=path, **self.options)


def _resumed(options: SessionOptions) -> ResumeOptions:
    """The options that a journal does not hold."""
    allowed = ResumeOptions.__annotations__
    return cast(ResumeOptions, {k: v for k, v in options.items() if k in allowed})
