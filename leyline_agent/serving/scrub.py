"""Scrubbing: after a redaction, nothing computed while the text was visible can be read again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from leyline_agent.directive import Mode
from leyline_agent.lowering import common_prefix
from leyline_agent.message import Message, text
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent, slice_extents
from leyline_agent.serving.sessions import EngineSession

__all__ = ["quoting_messages", "redact", "scrub"]

Counts = np.ndarray[tuple[int], np.dtype[np.int32]]

_MIN_LINE = 16
_MIN_WORD = 8


def redact(
    engine: Engine,
    session: EngineSession,
    keep: CachedSequence,
    receipt: Receipt,
    removed: str,
    view: Sequence[Message],
) -> Receipt:
    """`scrub` after a commit that redacts; its receipt, telling what could not be scrubbed.

    `removed` is the text the commit took away, `view` the messages that are left.
    """
    told = {
        "retained": scrub(engine, session, keep),
        "quoted_in": quoting_messages(removed, view),
        "reason": Reason.REDACTED,
    }
    session.replies.retain(view)
    edits = tuple(
        edit.model_copy(update=told) if edit.mode_used is Mode.FORGET else edit
        for edit in receipt.edits
    )
    return receipt.model_copy(update={"edits": edits})


def scrub(engine: Engine, session: EngineSession, keep: CachedSequence) -> int:
    """Drop and zero what the session's versions computed behind where `keep` departs from them.

    Every held version is given up: each was computed while the text was visible. The tenant's
    tree loses the same tokens. Slots nobody else holds are overwritten.

    Args:
        engine: whose pool and trees.
        session: whose versions.
        keep: the redacted sequence; its slots are clean.

    Returns:
        How many slots somebody else still holds: other sessions that were given the same text.
    """
    tree = engine.forest.tree(session.tenant)
    tainted: list[Extent] = []
    for version in session.versions.values():
        if version.evicted:
            continue
        start = common_prefix(version.sequence.tokens, keep.tokens)
        tainted.extend(version.sequence.extents(start))
        cached = tree.match(version.sequence.tokens)
        tree.remove(list(slice_extents(cached.extents, start, cached.length)))
    engine.pool.retain(tainted)
    for version in session.versions.values():
        version.evict()
        version.messages = None
    ours = _count(engine.pool.num_slots, tainted)
    alone = (ours > 0) & (engine.pool.references == ours)
    engine.executor.zero(_runs(alone))
    clean = _count(engine.pool.num_slots, keep.extents()) > 0
    retained = (ours > 0) & ~alone & ~clean
    engine.pool.release(tainted)
    return int(retained.sum())


def quoting_messages(removed: str, view: Sequence[Message]) -> tuple[int, ...]:
    """Indices of messages in `view` that repeat a long line, or a long word with a digit, of it."""
    lines = {line.strip() for line in removed.splitlines() if len(line.strip()) >= _MIN_LINE}
    words = {w for w in re.findall(r"[\w-]+", removed) if len(w) >= _MIN_WORD and _telling(w)}
    needles = lines | words
    return tuple(
        index
        for index, message in enumerate(view)
        if any(needle in text(message) for needle in needles)
    )


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
