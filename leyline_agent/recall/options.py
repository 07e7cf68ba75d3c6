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
        LeylineError: a limit is no whole number from 1 up, or `path` no path.
    """

    path: str | os.PathLike[str] | None = None
    max_bytes: int = 64 << 20
    max_per_turn: int = 3
    max_chars: int = 20_000

    def __post_init__(self) -> None:
        if self.path is not None and not isinstance(self.path, str | os.PathLike):
            raise LeylineError(f"recall: path is a file for the archive, not {self.path!r}")
        for name in ("max_bytes", "max_per_turn", "max_chars"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise LeylineError(
                    f"recall: {name} must be at least 1, a whole number, not {value!r}"
                )


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
