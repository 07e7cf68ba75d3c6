"""Running the server: uvicorn on a socket that is bound already."""

from __future__ import annotations

import copy
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


def _logging() -> dict[str, Any]:
    """Uvicorn's logging and ours, all of it on standard error."""
    config = copy.deepcopy(LOGGING_CONFIG)
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    config["loggers"]["uvicorn"]["level"] = "WARNING"
    config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    config["loggers"]["leyline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
