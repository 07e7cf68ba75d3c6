"""What is known of a result or a view is worked out once, and kept with it.

A history's results stay the same objects as a session grows, and a view is one object for all
policies of a turn: so a turn costs what is new in it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from leyline_agent.trajectory import ToolResult, Trajectory

__all__ = ["remembered"]

T = TypeVar("T")


def remembered(owner: ToolResult | Trajectory, key: Hashable, make: Callable[[], T]) -> T:
    """What `make()` gave the first time it was asked for under this key, for this very object.

    `make` must depend on nothing but the key and the object, which never changes.
    """
    known: dict[Hashable, T] = vars(owner).setdefault("_remembered", {})
    if key not in known:
        known[key] = make()
    return known[key]
