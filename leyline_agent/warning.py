"""Warnings: what users must learn of though they have configured no log."""

from __future__ import annotations

import sys
import warnings

__all__ = ["LeylineWarning", "warn"]

_PASSED_OVER = ("leyline_agent", "contextlib")


class LeylineWarning(UserWarning):
    """Something does not do what it was set up for: a policy fails, a model call is not seen.

    Given once for each session and policy, or for each wrapped function; the log has every case.
    """


def warn(message: str) -> None:
    """Give a `LeylineWarning` at the nearest caller outside this package.

    Raises:
        LeylineWarning: where the caller has made warnings errors.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, LeylineWarning, stacklevel=level)
