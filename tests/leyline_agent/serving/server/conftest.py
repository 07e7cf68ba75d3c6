"""The server over the tiny model, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

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
def endless(tiny_service: ChatService) -> ChatService:
    """The same service, with a model that never ends its turn."""
    tiny_service.chat.stop_ids = frozenset()
    return tiny_service
