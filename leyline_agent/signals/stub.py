"""The text that stands where a policy has removed an output, and how to recognise it.

One opening marks every stub, so that no policy edits another's stub and no signal takes a stub
for an output.
"""

from __future__ import annotations

__all__ = ["is_stub", "stub"]

_OPENING = "[Earlier output removed"


def stub(why: str) -> str:
    """The stub that says why an output was removed."""
    return f"{_OPENING}: {why}]"


def is_stub(content: str) -> bool:
    """Whether a result's content is a stub."""
    return content.startswith(_OPENING)
