"""The application: one chat service behind HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from leyline_agent._version import __version__
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.server import about, inference, sessions
from leyline_agent.serving.server.desk import Desk
from leyline_agent.serving.server.problems import add_handlers

__all__ = ["create_app"]


def create_app(service: ChatService) -> FastAPI:
    """The HTTP application over a chat service: OpenAI's endpoints and Leyline's own."""
    desk = Desk(service)
    service.chat.limit(service.engine.max_len)  # nobody waits for a request that cannot be served

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await desk.close()

    app = FastAPI(
        title="Leyline", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.desk = desk
    add_handlers(app)
    for module in (inference, sessions, about):
        app.include_router(module.router)
    return app
