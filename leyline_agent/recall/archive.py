"""Archives: what policies cut, by session and id, in sqlite."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["EVICTED", "FAILURES", "REDACTED", "Archive", "Found", "Item"]

FAILURES = (sqlite3.Error, OSError, ValueError)
"""What an archive's methods raise when it is full, locked, corrupt or on a read-only disk."""

EVICTED = "evicted"
REDACTED = "redacted"

_WAIT_S = 2.0
"""How long an archive that another process has locked is waited for."""

_MAX_MARKS = 10_000
"""How many of the outputs that are gone are still known by name."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS kept (place INTEGER PRIMARY KEY AUTOINCREMENT, "
    "session TEXT NOT NULL, id TEXT NOT NULL, policy TEXT NOT NULL, size INTEGER NOT NULL, "
    "gone TEXT NOT NULL, content TEXT, UNIQUE (session, id))",
    "CREATE INDEX IF NOT EXISTS kept_size ON kept (size)",
)


class Item(NamedTuple):
    """A message's content to be kept, with the policy that cut it."""

    id: str
    content: Any
    policy: str


class Found(NamedTuple):
    """What an archive has under an id.

    Attributes:
        content: as it was kept; None when it is gone.
        policy: the policy that cut it.
        gone: why it is gone: EVICTED or REDACTED; "" when it is not.
    """

    content: Any
    policy: str
    gone: str = ""


class Archive:
    """One session's part of an archive: it reads and deletes nothing else. Thread-safe.

    A file is opened for each operation, so nothing needs closing and other processes may use it.

    Args:
        session: whose part; a name nobody else can know keeps it apart from all others.
        path: the file; None keeps everything in memory.
        max_bytes: of the contents of all its sessions together, as UTF-8 JSON.
    """

    def __init__(
        self,
        session: str,
        path: str | os.PathLike[str] | None = None,
        max_bytes: int = 64 << 20,
    ) -> None:
        self.session = session
        self.path = None if path is None else Path(path)
        self.max_bytes = max_bytes
        self._lock = threading.RLock() if path is None else _lock_of(Path(path).resolve())
        self._memory: sqlite3.Connection | None = None
        if path is None:
            self._memory = sqlite3.connect(":memory:", check_same_thread=False)
            weakref.finalize(self, self._memory.close)
            self._prepare(self._memory)

    def fits(self, content: Any) -> bool:
        """Whether a content can be kept at all."""
        return _size(_json(content)) <= self.max_bytes

    def keep(self, items: Sequence[Item]) -> int:
        """Keep contents; what is kept or was redacted already stays as it is.

        Returns:
            How many contents had to go, the oldest first, one of these perhaps among them.
        """
        with self._opened() as database:
            for item in items:
                content = _json(item.content)
                size = _size(content)
                database.execute(
                    "INSERT INTO kept (session, id, policy, size, gone, content) "
                    "VALUES (?, ?, ?, ?, '', ?) ON CONFLICT (session, id) DO UPDATE SET "
                    "size = excluded.size, gone = '', content = excluded.content "
                    "WHERE gone = ?",
                    (self.session, item.id, item.policy, size, _storable(content), EVICTED),
                )
            return self._evict(database)

    def find(self, id: str) -> Found | None:
        """What is kept under an id of this session; None when there never was anything."""
        if self.path is not None and not self.path.exists():
            return None
        with self._opened(write=False) as database:
            row = database.execute(
                "SELECT content, policy, gone FROM kept WHERE session = ? AND id = ?",
                (self.session, id),
            ).fetchone()
        if row is None:
            return None
        content, policy, gone = row
        return Found(None if gone else json.loads(content), policy, gone)

    def redact(self, ids: Collection[str]) -> None:
        """Delete contents for good: the same ids are never kept again."""
        with self._opened() as database:
            database.executemany(
                "INSERT INTO kept (session, id, policy, size, gone) VALUES (?, ?, '', 0, ?) "
                "ON CONFLICT (session, id) DO UPDATE SET size = 0, gone = ?, content = NULL",
                [(self.session, id, REDACTED, REDACTED) for id in ids],
            )

    def _evict(self, database: sqlite3.Connection) -> int:
        (size,) = database.execute("SELECT coalesce(sum(size), 0) FROM kept").fetchone()
        if size <= self.max_bytes:
            return 0
        oldest = database.execute("SELECT place, size FROM kept WHERE size > 0 ORDER BY place")
        going = []
        for place, freed in oldest:
            if size <= self.max_bytes:
                break
            going.append((EVICTED, place))
            size -= freed
        database.executemany(
            "UPDATE kept SET size = 0, gone = ?, content = NULL WHERE place = ?", going
        )
        database.execute(
            "DELETE FROM kept WHERE gone = ? AND place NOT IN "
            "(SELECT place FROM kept WHERE gone = ? ORDER BY place DESC LIMIT ?)",
            (EVICTED, EVICTED, _MAX_MARKS),
        )
        return len(going)

    @contextmanager
    def _opened(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """The database; to be written, in a transaction of its own."""
        with self._lock:
            if self._memory is not None:
                with self._memory:
                    yield self._memory
                return
            assert self.path is not None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_WAIT_S)) as database, database:
                # A turn waits for no disk: what a power failure takes can be run again.
                database.execute("PRAGMA synchronous = OFF")
                if write:
                    # At once: sqlite waits for no lock in a transaction that has read already.
                    database.execute("BEGIN IMMEDIATE")
                    self._prepare(database)
                yield database

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("PRAGMA secure_delete = ON")  # What is deleted is overwritten.
        for table in _TABLES:
            database.execute(table)


@cache
def _lock_of(path: Path) -> threading.RLock:
    """One for each file: threads wait for one another in turn, and not by trying again."""
    return threading.RLock()


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, default=str)


def _size(content: str) -> int:
    return len(content.encode("utf-8", "surrogatepass"))


def _storable(content: str) -> str:
    """Text as sqlite can store it: halves of surrogate pairs go as JSON writes them."""
    try:
        content.encode()
    except UnicodeEncodeError:
        return json.dumps(json.loads(content))
    return content
