"""Policies of which nothing may stay behind."""

from __future__ import annotations

from pydantic import field_validator

from leyline_agent.directive import Mode
from leyline_agent.policy import Policy

__all__ = ["Correction"]


class Correction(Policy):
    """A policy whose edits are FORGET, never less: no cached token that saw the old text stays.

    Attributes:
        mode: forget; another one is an error.
    """

    mode: Mode = Mode.FORGET

    @property
    def redacts(self) -> bool:
        """A call is not made without a correction."""
        return True

    @field_validator("mode")
    @classmethod
    def _forgets(cls, mode: Mode) -> Mode:
        if mode is not Mode.FORGET:
            raise ValueError("mode must be forget: nothing of what is corrected may stay")
        return mode
