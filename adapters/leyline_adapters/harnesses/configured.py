"""Settings that stand in a framework's own configuration file, or in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from leyline_agent.errors import LeylineError

__all__ = ["configured"]

_NAMED = ("policies", "adapter", "journal")


def configured(section: Mapping[str, Any] | None, where: str) -> dict[str, Any]:
    """Keyword arguments of a harness: policies, adapter, journal, and its sessions' options.

    Args:
        section: what the configuration says; what it lacks of the first three is looked for in
            LEYLINE_POLICIES, LEYLINE_ADAPTER and LEYLINE_JOURNAL.
        where: the section's name, for errors.

    Raises:
        LeylineError: there are no policies.
    """
    given = {name: os.environ.get(f"LEYLINE_{name.upper()}") or None for name in _NAMED}
    found = {**given, **(section or {})}
    if not found["policies"]:
        raise LeylineError(
            f"no policies: set {where}.policies, or LEYLINE_POLICIES, to what `leyline inspect "
            "--policy` takes (keep_all edits nothing)"
        )
    return found
