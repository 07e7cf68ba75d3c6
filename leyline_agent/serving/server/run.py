"""Running the server."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from fastapi import FastAPI

from leyline_agent import listening

__all__ = ["run"]


def run(app: FastAPI, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an application on a bound socket until a signal stops it; `ready` once it listens."""
    listening.run(app, bound, ready, _GivenUp)


class _GivenUp(logging.Filter):
    """Drops the traceback of an answer that outlasted the grace; how many did is one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        raised = record.exc_info[1] if record.exc_info else None
        return not isinstance(raised, asyncio.CancelledError)
