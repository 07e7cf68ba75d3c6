"""Text of others on a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(untrusted: str) -> str:
    """The text without control characters: a recording must not steer the terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in untrusted
    )
