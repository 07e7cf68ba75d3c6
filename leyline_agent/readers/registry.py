"""Which reader understands a record. Decided by its content alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

from leyline_agent.errors import UnknownFormat
from leyline_agent.readers import (
    anthropic_messages,
    debug_gym,
    mini_swe_agent,
    moatless,
    openai_chat,
    openhands_completion,
    openhands_events,
    recorded_set,
    smolagents,
    swe_agent,
    tau2_bench,
    tau_bench,
)
from leyline_agent.readers.recording import Recording

__all__ = ["READERS", "Reader", "detect", "find", "is_batch"]


class Reader(NamedTuple):
    """A trace format: its name, whether a record is one, and the runs in it."""

    name: str
    matches: Callable[[Any], bool]
    recordings: Callable[[Any], Iterator[Recording]]


def _reader(module: ModuleType) -> Reader:
    return Reader(module.NAME, module.matches, module.recordings)


# Special before general: the first that matches reads.
READERS: tuple[Reader, ...] = tuple(
    map(
        _reader,
        (
            recorded_set,
            mini_swe_agent,
            swe_agent,
            openhands_events,
            openhands_completion,
            debug_gym,
            tau_bench,
            tau2_bench,
            moatless,
            smolagents,
            anthropic_messages,
            openai_chat,
        ),
    )
)


def detect(record: Any) -> str:
    """The name of the reader for a parsed JSON value. Raises what `find` raises."""
    return find(record).name


def find(record: Any) -> Reader:
    """The reader for a parsed JSON value: one record, or a list of records of one format.

    Raises:
        UnknownFormat: no reader knows it; the message says what was seen.
    """
    if is_batch(record):
        return find(record[0])
    for reader in READERS:
        if reader.matches(record):
            return reader
    known = ", ".join(sorted(reader.name for reader in READERS))
    raise UnknownFormat(
        f"no reader recognises {_seen(record)}; formats read: {known}. "
        "Anything can be converted to a list of OpenAI-chat messages"
    )


def is_batch(record: Any) -> bool:
    """Whether a value is a list of records and not a list of messages."""
    return (
        isinstance(record, list)
        and bool(record)
        and not (isinstance(record[0], dict) and "role" in record[0])
    )


def _seen(value: Any) -> str:
    if isinstance(value, dict):
        keys = [str(key)[:40] for key in list(value)[:12]]
        return f"an object with keys {', '.join(keys) or '(none)'}"
    if isinstance(value, list):
        return f"a list of {type(value[0]).__name__}" if value else "an empty list"
    return f"a bare {type(value).__name__}"
