"""The two ends of a long text."""

from __future__ import annotations

from collections.abc import Callable

from leyline_agent.signals import cut

__all__ = ["head_and_tail"]


def head_and_tail(text: str, max_chars: int, line: Callable[[int], str] = cut) -> str:
    """`text` itself, or its two ends around `line`, which says how much is gone: <= `max_chars`.

    Where `max_chars` has no room for that line, only the beginning is kept.
    """
    if len(text) <= max_chars:
        return text
    room = max_chars - len(f"\n{line(len(text))}\n")
    if room < 2:
        return text[:max_chars]
    head = (room + 1) // 2
    tail = room - head
    return f"{text[:head]}\n{line(len(text) - room)}\n{text[len(text) - tail :]}"
