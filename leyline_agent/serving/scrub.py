"""Scrubbing: after a redaction, nothing computed while the text was visible can be read again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from leyline_agent.message import Message, text
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent, slice_extents
from leyline_agent.serving.sessions import EngineSession

__all__ = ["quoting_messages", "scrub"]

Counts = np.ndarray[tuple[int], np.dtype[np.int32]]

_MIN_LINE = 16
_MIN_WORD = 8


def scrub(engine: Engine, session: EngineSession, start: int, keep: CachedSequence) -> int:
    """Drop and zero what the session's held versions computed from token `start` on.

    Every held version is given up: each was computed while the text was visible. The tenant's
    tree loses the same tokens. Slots nobody else holds are overwritten.

    Args:
        engine: whose pool and trees.
        session: whose versions.
        start: first token of the redacted span.
        keep: the redacted sequence; its slots are clean.

    Returns:
        How many slots somebody else still holds: other sessions that were given the same text.
    """
    tree = engine.forest.tree(session.tenant)
    tainted: list[Extent] = []
    for version in session.versions.values():
        if version.evicted or len(version.sequence) <= start:
            continue
        tainted.extend(version.sequence.extents(start))
        cached = tree.match(version.sequence.tokens)
        tree.remove(list(slice_extents(cached.extents, start, cached.length)))
    engine.pool.retain(tainted)
    for version in session.versions.values():
        version.sequence.release()
        version.evicted = True
    ours = _count(engine.pool.num_slots, tainted)
    alone = (ours > 0) & (engine.pool.references == ours)
    engine.executor.zero(_runs(alone))
    clean = _count(engine.pool.num_slots, keep.extents()) > 0
    retained = (ours > 0) & ~alone & ~clean
    engine.pool.release(tainted)
    return int(retained.sum())


def quoting_messages(removed: str, view: Sequence[Message], edited: Iterable[int]) -> list[int]:
    """Indices of messages in `view` that repeat a line or a telling word of the removed text.

    `edited` are the replacements themselves. Only long lines and words with a digit count.
    """
    skip = set(edited)
    lines = {line.strip() for line in removed.splitlines() if len(line.strip()) >= _MIN_LINE}
    words = {w for w in re.findall(r"[\w-]+", removed) if len(w) >= _MIN_WORD and _telling(w)}
    needles = lines | words
    return [
        index
        for index, message in enumerate(view)
        if index not in skip and any(needle in text(message) for needle in needles)
    ]


def _telling(word: str) -> bool:
    return any(c.isdigit() for c in word)


def _count(num_slots: int, extents: Iterable[Extent]) -> Counts:
    """How often each slot occurs in the extents."""
    result = np.zeros(num_slots, np.int32)
    for start, end in extents:
        result[start:end] += 1
    return result


def _runs(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[Extent]:
    slots = np.flatnonzero(mask)
    parts = np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1)
    return [Extent(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
