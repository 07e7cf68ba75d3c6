"""Running the proxy."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Callable
from typing import Any

from leyline_adapters.proxy.app import Proxy
from leyline_agent import listening

__all__ = ["run", "settings"]

_GC_THRESHOLD = (20_000, 20, 20)  # a turn makes some thousand containers and keeps most of them


def run(app: Proxy, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve the proxy on a bound socket until a signal stops it; `ready` once it listens."""

    def settled() -> None:
        gc.freeze()  # What was imported stays; looking through it holds every call up.
        gc.set_threshold(*_GC_THRESHOLD)
        ready()

    listening.run(app, bound, settled, _OnPurpose, **settings())


def settings() -> dict[str, Any]:
    """What uvicorn must leave alone: the upstream's headers. Query strings may hold keys."""
    return {"server_header": False, "date_header": False, "access_log": False}


class _OnPurpose(logging.Filter):
    """Drops what uvicorn says where an answer that broke upstream is not ended."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "without completing response" not in record.getMessage()
