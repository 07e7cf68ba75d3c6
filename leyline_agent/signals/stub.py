"""The text that stands where a policy has removed an output, and how to recognise it.

One opening marks every stub and one line every cut, so that no policy edits another's work and no
signal takes a stub for an output. Notes are whole messages that policies add: no user's words.
"""

from __future__ import annotations

import re

from leyline_agent.recall.stubs import has_line

__all__ = [
    "SUMMARY",
    "UPDATE",
    "capped",
    "cut",
    "is_capped",
    "is_cut",
    "is_note",
    "is_stub",
    "stub",
]

SUMMARY = "[Summary of what was said and done here; the messages were removed]"
UPDATE = "STATE UPDATE, which overrides any earlier value:"

_OPENING = "[Earlier output removed"
_CUT_END = " characters removed ...]"
_CAPPED_END = " characters not shown ...]"
_CUT = re.compile(r"^\[\.\.\. \d+ characters removed \.\.\.\]$", re.MULTILINE)
_CAPPED = re.compile(r"^\[\.\.\. \d+ characters not shown \.\.\.\]$", re.MULTILINE)


def stub(why: str) -> str:
    """The stub that says why an output was removed."""
    return f"{_OPENING}: {why}]"


def is_stub(content: str) -> bool:
    """Whether a result's content is a stub: by its opening, or the line that recall puts under."""
    return content.startswith(_OPENING) or has_line(content)


def cut(num_chars: int) -> str:
    """The line that stands for `num_chars` characters taken out of the middle of a text."""
    return f"[... {num_chars} characters removed ...]"


def is_cut(content: str) -> bool:
    """Whether something was taken out of the middle of a text."""
    # Looking for a plain text first is twenty times faster where there is none.
    return _CUT_END in content and _CUT.search(content) is not None


def capped(num_chars: int) -> str:
    """The line for `num_chars` characters that were taken out before the text was first sent."""
    return f"[... {num_chars} characters not shown ...]"


def is_capped(content: str) -> bool:
    """Whether something was taken out before the text was first sent; it may be edited later."""
    return _CAPPED_END in content and _CAPPED.search(content) is not None


def is_note(content: str) -> bool:
    """Whether a message is one that a policy has added."""
    return content.startswith((SUMMARY, UPDATE))
