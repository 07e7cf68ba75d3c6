"""Scrubbing: after a redaction, nothing computed while the text was visible can be read again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from leyline_agent.directive import Mode
from leyline_agent.message import Message
from leyline_agent.quoting import quoting_messages
from leyline_agent.receipt import EditReceipt, Reason, Receipt
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent
from leyline_agent.serving.sessions import EngineSession
from leyline_agent.serving.turns import Turn
from leyline_agent.serving.work import Cached

if TYPE_CHECKING:
    from leyline_agent.serving.engine import Engine
    from leyline_agent.serving.host import Host

__all__ = ["redact", "scrub"]

Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]


def redact(
    engine: Host,
    session: EngineSession,
    keep: Cached,
    receipt: Receipt,
    turn: Turn,
    view: Sequence[Message],
) -> Receipt:
    """`scrub` after a commit that redacts; its receipt, telling what could not be scrubbed.

    `turn` is the commit's, `receipt` what is told of it, `view` the messages that are left.
    """
    told: dict[str, Any] = {
        "mode_used": Mode.FORGET,
        "reason": Reason.REDACTED,
        "retained": engine.scrub(session, keep),
        "quoted_in": quoting_messages(turn.removed, view),
    }
    session.replies.retain(view)
    edits = [
        edit.model_copy(update=told) if index in turn.redacting else edit
        for index, edit in enumerate(receipt.edits)
    ]
    if not turn.redacting:  # nothing of it was cached in this version
        edits.append(EditReceipt(mode_asked=Mode.FORGET, **told))
    return receipt.model_copy(update={"edits": tuple(edits)})


def scrub(engine: Engine, session: EngineSession, keep: CachedSequence) -> int:
    """Give up everything a session had computed but what `keep` and its prefix consist of.

    Every held version goes, with all that the session ever put into its tenant's tree: it was, or
    may have been, computed while the text was visible. Slots that nobody holds are overwritten.

    Args:
        engine: whose pool and trees.
        session: whose versions.
        keep: the redacted sequence; its slots are clean.

    Returns:
        How many slots somebody else still holds: other sessions that were given the same text.
    """
    pool, tree = engine.pool, engine.forest.tree(session.tenant)
    ours = tree.owned(session.id)
    for version in session.versions.values():
        assert isinstance(version.sequence, CachedSequence)
        ours.extend(version.sequence.extents())
    clean = [*keep.extents(), *tree.match(keep.tokens).extents]
    tainted = _mask(pool.num_slots, ours) & ~_mask(pool.num_slots, clean)
    tree.remove(_runs(tainted))
    for version in session.versions.values():
        version.evict()
        version.messages = None
    used_before = (pool.references == 0) & (pool.epochs > 0)
    engine.executor.zero(_runs(used_before))
    return int((tainted & (pool.references > 0)).sum())


def _mask(num_slots: int, extents: Iterable[Extent]) -> Mask:
    """Which slots are in the extents."""
    result = np.zeros(num_slots, np.bool_)
    for start, end in extents:
        result[start:end] = True
    return result


def _runs(mask: Mask) -> list[Extent]:
    slots = np.flatnonzero(mask)
    parts = np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1)
    return [Extent(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
