"""The difference of two lists of messages, as edits: what a transform has done."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Iterator, Sequence

from leyline_agent.edit import Edit
from leyline_agent.message import Message, calls, digest

__all__ = ["differences"]


def differences(before: Sequence[Message], after: Sequence[Message]) -> Iterator[Edit]:
    """Small edits that turn one list of messages into the other.

    Equal messages are matched first. Among the rest, a message that only changed its text is
    matched with itself by its seat, so that no edit tears a call from its results.
    """
    for same, a0, a1, b0, b1 in _ranges(map(digest, before), map(digest, after)):
        if same:
            continue
        old, new = before[a0:a1], after[b0:b1]
        for seated, c0, c1, d0, d1 in _ranges(map(_seat, old), map(_seat, new)):
            if seated:
                for place, message in zip(range(a0 + c0, a0 + c1), new[d0:d1], strict=True):
                    yield Edit(place, place + 1, (message,))
            else:
                yield Edit(a0 + c0, a0 + c1, tuple(new[d0:d1]))


def _ranges(
    before: Iterable[Hashable], after: Iterable[Hashable]
) -> list[tuple[bool, int, int, int, int]]:
    """Whether they are equal, and the half-open ranges [a0, a1) and [b0, b1), in order."""
    matcher = difflib.SequenceMatcher(a=list(before), b=list(after), autojunk=False)
    return [(tag == "equal", a0, a1, b0, b1) for tag, a0, a1, b0, b1 in matcher.get_opcodes()]


def _seat(message: Message) -> tuple[str, str, tuple[str, ...]]:
    """What a message keeps when its text changes: role, the call it answers, the calls it makes."""
    made = tuple(str(call.get("id")) for call in calls(message))
    return str(message.get("role")), str(message.get("tool_call_id")), made
