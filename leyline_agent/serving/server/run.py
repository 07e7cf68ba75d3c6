"""Running the server: uvicorn on a socket that is bound already."""

from __future__ import annotations

import asyncio
import copy
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

__all__ = ["run"]

_GRACE = 3  # seconds that answers under way have when the server is told to stop


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def run(app: FastAPI, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve an application on a bound socket until a signal stops it; `ready` once it listens."""
    config = uvicorn.Config(
        app, log_config=_logging(), timeout_graceful_shutdown=_GRACE, lifespan="on"
    )
    _Server(config, ready).run(sockets=[bound])


class _GivenUp(logging.Filter):
    """Drops the traceback of an answer that outlasted the grace; how many did is one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        raised = record.exc_info[1] if record.exc_info else None
        return not isinstance(raised, asyncio.CancelledError)


def _logging() -> dict[str, Any]:
    """Uvicorn's logging and ours, all of it on standard error."""
    config = copy.deepcopy(LOGGING_CONFIG)
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    config["loggers"]["uvicorn"]["level"] = "WARNING"
    config["filters"] = {"given up": {"()": _GivenUp}}
    config["loggers"]["uvicorn.error"] |= {"level": "WARNING", "filters": ["given up"]}
    config["loggers"]["leyline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
