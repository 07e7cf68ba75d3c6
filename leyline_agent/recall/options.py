"""What a user may set about recall."""

from __future__ import annotations

import os
from dataclasses import dataclass

from leyline_agent.errors import LeylineError

__all__ = ["Recall", "RecallLike", "as_recall"]


@dataclass(frozen=True)
class Recall:
    """Keep what policies cut from tool results, and let the model see it again.

    Attributes:
        path: a file for the archive, which many sessions may share; None keeps it in memory.
        max_bytes: the size at most of all texts in the archive; the oldest go first.
        max_per_turn: how many outputs the model may recall before it must answer.
        max_chars: how many characters one recall shows; the model may ask for the next ones.

    Raises:
        LeylineError: a limit is less than 1.
    """

    path: str | os.PathLike[str] | None = None
    max_bytes: int = 64 << 20
    max_per_turn: int = 3
    max_chars: int = 20_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_per_turn", "max_chars"):
            if getattr(self, name) < 1:
                raise LeylineError(f"recall: {name} must be at least 1, not {getattr(self, name)}")


RecallLike = bool | Recall | str | os.PathLike[str]
"""What the option `recall` takes: True or a file for the defaults, or a `Recall`."""


def as_recall(value: RecallLike | None) -> Recall | None:
    """The settings in what a user passed; None for no recall.

    Raises:
        LeylineError: it is none of these.
    """
    if value is None or value is False:
        return None
    if value is True:
        return Recall()
    if isinstance(value, Recall):
        return value
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return Recall(value)
    raise LeylineError(f"recall={value!r}; pass True, a file for the archive, or a leyline.Recall")
