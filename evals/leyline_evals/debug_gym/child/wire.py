"""Lines of JSON over the standard streams this process was started with.

They are put out of reach first: what tools start, and what prints, gets others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

__all__ = ["Wire"]


class Wire:
    """The parent process, as seen from here."""

    def __init__(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)

    def read(self) -> dict[str, Any]:
        """What the parent says next. Without a parent there is nothing left to do."""
        line = self._in.readline()
        if not line:
            os._exit(0)
        message: dict[str, Any] = json.loads(line)
        return message

    def write(self, message: Mapping[str, Any]) -> None:
        """Tell the parent."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()
