"""What the environment asks of every session."""

from __future__ import annotations

import os

from leyline_agent.errors import LeylineError

__all__ = ["heed_environment"]

_ON, _OFF = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def heed_environment() -> None:
    """Look at it, wherever options are given and sessions made; imports only what is asked for.

    Raises:
        LeylineError: it asks for what is not installed, or not known.
    """
    if named := os.environ.get("LEYLINE_TELEMETRY"):
        from leyline_agent.telemetry import enable_as_named

        enable_as_named(named)
    live = os.environ.get("LEYLINE_LIVE", "")
    if live.lower() in _ON:
        from leyline_agent.live_line import live_as_asked

        live_as_asked()
    elif live.lower() not in _OFF:
        raise LeylineError(f"LEYLINE_LIVE={live!r} is not known; use '1', or unset it")
