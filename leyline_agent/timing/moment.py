"""Moments: what was decided of a turn's edits, in numbers and in words."""

from __future__ import annotations

from enum import Enum

from pydantic import BaseModel, ConfigDict

__all__ = ["EditPlace", "Moment", "When"]


class When(str, Enum):
    """When edits are made.

    NOW: with this call. TOOL: while the tool runs that a reply has called, so that the next call
    finds them done. WAIT: later, with others; policies propose them again.
    """

    NOW = "now"
    TOOL = "while_tool_runs"
    WAIT = "wait"


class EditPlace(BaseModel):
    """One edit, by its place: messages [start, end) of the view before the turn's edits."""

    model_config = ConfigDict(defer_build=True, frozen=True)

    start: int
    end: int
    policy: str = ""


class Moment(BaseModel):
    """The moment chosen for some of a turn's edits, and why.

    Attributes:
        when: the moment.
        held: whether they were left out of this commit.
        reason: why, in words.
        edits: which ones.
        saves: tokens by which they shorten every later prompt.
        cost: what making them with this call costs more than the call without them, in tokens at
            the price of an uncached one; below 0 where it is cheaper.
        calls: how many later calls pay for that; None where no number of them does.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    when: When
    held: bool
    reason: str
    edits: tuple[EditPlace, ...] = ()
    saves: int = 0
    cost: int = 0
    calls: float | None = None

    def __str__(self) -> str:
        count = len(self.edits)
        return f"{count} edit{'s' * (count != 1)} {_WORDS[self.when]}: {self.reason}"


_WORDS = {When.NOW: "now", When.TOOL: "while the tool runs", When.WAIT: "held"}
