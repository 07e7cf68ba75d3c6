"""Quotations: what a redaction took away, and the messages that still repeat it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from leyline_agent.edit import Edit
from leyline_agent.message import Message, text

__all__ = ["quoting_messages", "readable", "redacted_text"]

_MIN_LINE = 16
_MIN_WORD = 8


def readable(message: Message) -> str:
    """All the text of a message, the arguments of its calls included."""
    functions = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    functions.append(message.get("function_call") or {})
    return "\n".join([text(message), *(str(f.get("arguments") or "") for f in functions)])


def redacted_text(unedited: Sequence[Message], edits: Sequence[Edit]) -> str:
    """The text of the messages that redacting edits take away."""
    return "\n".join(
        readable(message)
        for edit in edits
        if edit.redact
        for message in unedited[edit.start : edit.end]
    )


def quoting_messages(removed: str, view: Sequence[Message]) -> tuple[int, ...]:
    """Indices of messages in `view` that repeat a long line, or a long word with a digit, of it."""
    lines = {line.strip() for line in removed.splitlines() if len(line.strip()) >= _MIN_LINE}
    words = {w for w in re.findall(r"[\w-]+", removed) if len(w) >= _MIN_WORD and _telling(w)}
    needles = lines | words
    return tuple(
        index
        for index, message in enumerate(view)
        if any(needle in readable(message) for needle in needles)
    )


def _telling(word: str) -> bool:
    return any(c.isdigit() for c in word)
