"""Running the proxy: uvicorn on a socket that is bound already."""

from __future__ import annotations

import copy
import gc
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from leyline_adapters.proxy.app import Proxy

__all__ = ["run", "settings"]

_GC_THRESHOLD = (20_000, 20, 20)  # a turn makes some thousand containers and keeps most of them
_GRACE = 3  # seconds that answers under way have when the proxy is told to stop


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            gc.freeze()  # What was imported stays; looking through it holds every call up.
            gc.set_threshold(*_GC_THRESHOLD)
            self._ready()


def run(app: Proxy, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Serve the proxy on a bound socket until a signal stops it; `ready` once it listens."""
    config = uvicorn.Config(
        app, log_config=_logging(), timeout_graceful_shutdown=_GRACE, lifespan="on", **settings()
    )
    logging.getLogger("uvicorn.error").addFilter(_on_purpose)
    _Server(config, ready).run(sockets=[bound])


def settings() -> dict[str, Any]:
    """What uvicorn must leave alone: the upstream's headers. Query strings may hold keys."""
    return {"server_header": False, "date_header": False, "access_log": False}


def _on_purpose(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says where an answer that broke upstream is not ended."""
    return "without completing response" not in record.getMessage()


def _logging() -> dict[str, Any]:
    """Uvicorn's logging and ours, all of it on standard error."""
    config = copy.deepcopy(LOGGING_CONFIG)
    for handler in config["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    config["loggers"]["uvicorn"]["level"] = "WARNING"
    config["loggers"]["uvicorn.error"]["level"] = "WARNING"
    config["loggers"]["leyline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
