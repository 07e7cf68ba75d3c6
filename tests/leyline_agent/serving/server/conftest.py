"""The server over the tiny model: in this process, and behind a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import uvicorn

from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.server import create_app


@pytest.fixture
async def client(tiny_service: ChatService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application itself; no socket."""
    app = create_app(tiny_service)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://leyline") as client,
    ):
        yield client


@pytest.fixture
def live_url(tiny_service: ChatService) -> Iterator[str]:
    """The address of a real server on loopback."""
    config = uvicorn.Config(create_app(tiny_service), port=0, log_level="error", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def endless(tiny_service: ChatService) -> ChatService:
    """The same service, with a model that never ends its turn."""
    tiny_service.chat.stop_ids = frozenset()
    return tiny_service
