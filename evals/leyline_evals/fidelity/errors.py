"""What can go wrong in a fidelity measurement."""

from __future__ import annotations

from leyline_agent.errors import LeylineError

__all__ = ["FidelityError"]


class FidelityError(LeylineError):
    """A measurement that cannot be made or read."""
