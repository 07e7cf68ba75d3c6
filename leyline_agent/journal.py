"""Journals: a session on disk, one JSON event a line, appended and flushed as things happen.

Written at the start (`open`, `resume`), before each call (`begin`: numbers and a digest, no text)
and after it (`commit` or `fail`). docs/journal.md has the schema. What an edit redacts is
taken out of the lines already written; only its digest stays.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from leyline_agent.branch import Snapshot
from leyline_agent.errors import LeylineError, TrajectoryError
from leyline_agent.message import Message
from leyline_agent.proposal import Accepted
from leyline_agent.recall.exchange import Exchange
from leyline_agent.receipt import Receipt
from leyline_agent.state import Gone, State
from leyline_agent.view import restored, tombstone

if TYPE_CHECKING:
    from leyline_agent.turn import Prepared

__all__ = ["Journal", "Loaded", "SCHEMA", "begins", "check_path", "checked", "is_journal", "load"]

SCHEMA = 1

MAX_OPEN_BYTES = 1 << 20

Event = dict[str, Any]


class Journal:
    """Appends a session's events to a file; makes the folders above it.

    The file is opened for each event, so nothing needs closing. One that cannot be written any
    more is left as it is, readable up to there: nothing goes behind a hole.

    Args:
        path: the file.
        failed: told of a write that failed, by kind and in words; None to raise it.

    Raises:
        LeylineError: it is no path, or lies in what is no folder.
    """

    def __init__(
        self, path: str | os.PathLike[str], failed: Callable[[str, str], None] | None = None
    ) -> None:
        self.path = check_path(path)
        self.on_failure = failed
        self._is_off = False
        self._end: tuple[int, int] | None = None  # Whose file it was, and where it ended.
        self._to_redact: tuple[frozenset[tuple[int, str]], frozenset[str]] | None = None

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; where that failed once, nothing any more.

        Raises:
            TrajectoryError: another session has written to the file since.
            OSError: nobody is to be told of the failure, or the first event has no file.
        """
        if self._is_off:
            return
        line = _line({"v": SCHEMA, "event": event, "time": round(time.time(), 3), **fields})
        try:
            self._append(line)
        except OSError as error:
            if self.on_failure is None or self._end is None:
                raise
            self._is_off = True
            self.on_failure(
                type(error).__name__,
                f"the journal {self.path} cannot be written: {error}. It ends there, and the "
                "session goes on in memory",
            )

    def _append(self, line: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="ascii") as file:
            self._check_ours(os.fstat(file.fileno()))
            file.write(line)
            file.flush()
            self._end = _end(os.fstat(file.fileno()))

    def _check_ours(self, found: os.stat_result) -> None:
        """That nobody has written since this did.

        Raises:
            TrajectoryError: somebody has.
        """
        if self._end is None:
            self._end = _end(found)
        elif self._end != _end(found):
            raise TrajectoryError(
                f"{self.path} was continued by another session, or changed; this one can go on "
                "with it no more. Resume it anew, and let one session at a time write it"
            )

    def opened(self, state: State, adapter: str, policies: Sequence[str]) -> None:
        """A new session begins its journal.

        Raises:
            TrajectoryError: the file holds something already.
        """
        if self.path.exists() and self.path.stat().st_size:
            raise TrajectoryError(
                f"{self.path} is not empty; continue its session with Session.resume, or name "
                "another file"
            )
        self.write(
            "open",
            session=state.id,
            observations=state.observations,
            mode_floor=state.mode_floor and state.mode_floor.value,
            adapter=adapter,
            policies=list(policies),
        )

    def begun(self, prepared: Prepared) -> None:
        """A call is about to be made; a crash before its answer makes the next one a retry."""
        commit = prepared.commit
        self.write(
            "begin",
            base=commit.base_version,
            version=commit.version,
            view_digest=commit.view_digest,
        )

    def committed(self, prepared: Prepared, made: Snapshot, gone: Gone, receipt: Receipt) -> None:
        """A call was answered: what was new in the history, the edits, the reply, the receipt."""
        if gone.places or self._to_redact:
            self._redact_or_tell(gone)
        draft, proposal = prepared.draft, prepared.proposal
        asked, replied = made.history[: len(draft.history)], made.history[len(draft.history) :]
        self.write(
            "commit",
            base=draft.base,
            version=made.version,
            kept=draft.kept,
            pieces=draft.kept_pieces,
            messages=[record.message for record in asked[draft.kept :]],
            edits=[_edit(accepted) for accepted in proposal.accepted],
            skipped=[skipped._asdict() for skipped in proposal.skipped],
            moments=[moment.model_dump(mode="json") for moment in proposal.moments],
            reply=replied[0].message if replied else None,
            **({"exchange": _exchange(made.exchange)} if made.exchange else {}),
            receipt=receipt.model_dump(mode="json", exclude_defaults=True),
        )

    def failed(self, prepared: Prepared, error: BaseException | str | None) -> None:
        """A call failed or was given up."""
        told = "abandoned" if error is None else error
        kind = told if isinstance(told, str) else type(told).__name__
        self.write("fail", version=prepared.commit.version, error=kind)

    def _redact_or_tell(self, gone: Gone) -> None:
        """Redact, and what could not be redacted before; from a journal that is off as well."""
        places, stubs = self._to_redact or (frozenset(), frozenset())
        self._to_redact = (places | gone.places, stubs | gone.stubs)
        try:
            self.redact(*self._to_redact)
            self._to_redact = None
        except (OSError, TrajectoryError) as error:
            if self.on_failure is None:
                raise
            self.on_failure(
                "NotRedacted",
                f"what was redacted is still in the journal {self.path}, which cannot be written: "
                f"{error}. It is tried again in the next turn; delete the file if there is none",
            )

    def redact(self, places: Collection[tuple[int, str]], stubs: Collection[str]) -> None:
        """Put tombstones for redacted text into the lines already written.

        Args:
            places: history index and digest of each redacted message.
            stubs: digests of replacements that stood for such messages in a view.
        """
        if not self.path.is_file():
            return
        self._check_ours(self.path.stat())
        events = [_redacted(event, places, stubs) for event in load(self.path).events]
        scratch = self.path.with_name(self.path.name + ".redacting")
        try:
            with scratch.open("w", encoding="ascii") as file:
                file.writelines(map(_line, events))
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self.path)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise
        self._end = _end(self.path.stat())


class Loaded(NamedTuple):
    """A journal read back.

    Attributes:
        events: its whole lines.
        dropped: the bytes of a last line that was cut off while it was written.
        end: where the whole lines end, in bytes.
    """

    events: list[Event]
    dropped: int
    end: int


def check_path(path: str | os.PathLike[str]) -> Path:
    """A path that a journal, or a folder of journals, can be made at.

    Raises:
        LeylineError: it is no path, or something above it is no folder.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise LeylineError(f"journal={path!r}: it is a path, as text or a pathlib.Path")
    found = Path(path)
    above = next((folder for folder in found.parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        raise LeylineError(f"journal {found}: {above} is a file; name a place in a folder")
    return found


def is_journal(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a journal does."""
    try:
        with Path(path).open("rb") as file:
            first = json.loads(file.readline(MAX_OPEN_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return begins(first)


def begins(value: Any) -> bool:
    """Whether a line's JSON value is the first event of a journal."""
    return isinstance(value, dict) and value.get("event") == "open" and "v" in value


def load(path: str | os.PathLike[str]) -> Loaded:
    """The events of a journal; a last line that was cut off is left out and counted.

    Raises:
        TrajectoryError: a line is corrupt, or of a schema this version does not know.
    """
    data = Path(path).read_bytes()
    end = data.rfind(b"\n") + 1
    events = [
        _parsed(line, number, path)
        for number, line in enumerate(data[:end].split(b"\n")[:-1], start=1)
    ]
    return Loaded(events, len(data) - end, end)


def _parsed(line: bytes, number: int, path: str | os.PathLike[str]) -> Event:
    where = f"{os.fspath(path)}, line {number}"
    try:
        event = json.loads(line)
    except ValueError as error:
        raise TrajectoryError(
            f"{where}: not JSON ({error}); the journal was changed after it was written. Restore "
            "it, or cut it before this line to resume from there"
        ) from error
    return checked(event, where)


def checked(event: Any, where: str) -> Event:
    """A line's JSON value as an event of a schema that this version knows.

    Raises:
        TrajectoryError: it is none; `where` tells the line.
    """
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise TrajectoryError(f"{where}: not an event of a journal")
    if event.get("v") != SCHEMA:
        raise TrajectoryError(
            f"{where}: schema {event.get('v')!r}; this version reads schema {SCHEMA}"
        )
    return event


def _line(event: Mapping[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"), default=str) + "\n"


def _end(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_size


def _edit(accepted: Accepted) -> dict[str, Any]:
    edit = accepted.edit
    return {
        "start": edit.start,
        "end": edit.end,
        "replacement": [record.message for record in accepted.records],
        "asked": edit.effective_mode().value,
        "mode": accepted.mode.value,
        "reason": edit.reason,
        "policy": edit.policy,
        "redact": edit.redact,
        **({"recall": ids} if any(ids := [r.recall for r in accepted.records]) else {}),
    }


def _exchange(made: Exchange) -> dict[str, Any]:
    return {
        "reply": made.reply.message,
        "results": [known.message for known in made.results],
        "recalled": [one._asdict() for one in made.recalled],
    }


def _redacted(event: Event, places: Collection[tuple[int, str]], stubs: Collection[str]) -> Event:
    if event["event"] == "answer":
        return {**event, "text": None}  # Questions are not searched for what they quote.
    if event["event"] != "commit":
        return event
    told = [*event["messages"], *([event["reply"]] if event["reply"] else [])]
    told = [_buried(m, event["kept"] + i, places) for i, m in enumerate(told)]
    edits = [
        {**edit, "replacement": [_buried(m, None, stubs) for m in edit["replacement"]]}
        for edit in event["edits"]
    ]
    count = len(event["messages"])
    reply = told[count] if event["reply"] else None
    event = {**event, "messages": told[:count], "reply": reply, "edits": edits}
    if exchange := event.get("exchange"):
        results = [_buried(message, None, stubs) for message in exchange["results"]]
        event["exchange"] = {**exchange, "results": results}
    return event


def _buried(message: Message, index: int | None, gone: Collection[Any]) -> Message:
    record = restored(message)
    key = record.digest if index is None else (index, record.digest)
    return tombstone(record).message if key in gone else message
