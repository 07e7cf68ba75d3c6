"""Which releases of SGLang the plug-in fits; it overrides methods that other releases change."""

from __future__ import annotations

from leyline_agent.errors import AdapterError

__all__ = ["SUPPORTED", "check"]

SUPPORTED = {"0.5.23": "function-tested on a CPU, one process (docs/sglang.md)"}


def check(version: str) -> None:
    """Raise unless the plug-in was written for this release.

    Raises:
        AdapterError: it was not.
    """
    if version not in SUPPORTED:
        known = ", ".join(SUPPORTED)
        raise AdapterError(
            f"Leyline's radix cache fits SGLang {known}, and this is {version or 'unknown'}; "
            "install a release it fits, or start without --radix-cache-backend leyline"
        )
