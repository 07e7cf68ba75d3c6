"""Listening: uvicorn on a socket that is bound already, for each of our servers.

Needs uvicorn, which the extras `serve` and `proxy` bring.
"""

from __future__ import annotations

import copy
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

__all__ = ["run"]

_GRACE = 3  # seconds that answers under way have when a server is told to stop


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def run(
    app: Any,
    bound: socket.socket,
    ready: Callable[[], None],
    quiet: type[logging.Filter],
    **settings: Any,
) -> None:
    """Serve an ASGI application on a bound socket until a signal stops it.

    Args:
        app: the application.
        bound: the socket.
        ready: called once it listens.
        quiet: filters out what uvicorn need not say of errors.
        settings: further ones of uvicorn's.
    """
    config = uvicorn.Config(
        app,
        log_config=_logging(quiet),
        timeout_graceful_shutdown=_GRACE,
        lifespan="on",
        **settings,
    )
    _Server(config, ready).run(sockets=[bound])


def _logging(quiet: type[logging.Filter]) -> dict[str, Any]:
    """Uvicorn's logging and ours, all of it on standard error."""
    config = copy.deepcopy(LOGGING_CONFIG)
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    config["loggers"]["uvicorn"]["level"] = "WARNING"
    config["filters"] = {"quiet": {"()": quiet}}
    config["loggers"]["uvicorn.error"] |= {"level": "WARNING", "filters": ["quiet"]}
    config["loggers"]["leyline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
