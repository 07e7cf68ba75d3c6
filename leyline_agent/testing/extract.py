"""Answers to questions without a model: the beginnings of what was asked about."""

from __future__ import annotations

from leyline_agent import message as message_module
from leyline_agent.question import Ask

__all__ = ["extract"]

LINE_CHARS = 160
CHARS_PER_TOKEN = 4


def extract(ask: Ask) -> str:
    """The first lines of each paragraph, as many as a model's answer may hold, the last ones first.

    It has about the length of a summary and nothing of its sense: for tests, and to count what
    summaries cost.
    """
    asked = (message for message in ask.messages if message.get("role") != "system")
    text = "\n\n".join(map(message_module.text, asked))
    room = ask.max_tokens * CHARS_PER_TOKEN
    room = min(room, ask.max_chars) if ask.max_chars else room
    kept: list[str] = []
    for paragraph in reversed(text.split("\n\n")):
        line = " ".join(paragraph.split())[:LINE_CHARS]
        if not line:
            continue
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(reversed(kept)) or text.strip()[: ask.max_chars or None]
