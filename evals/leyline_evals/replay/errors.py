"""What can go wrong with a replay as a whole."""

from __future__ import annotations

from leyline_agent.errors import LeylineError

__all__ = ["ReplayError"]


class ReplayError(LeylineError):
    """A replay that cannot be run as asked, or resumed."""
