"""The application: which requests are turns, which are the proxy's own, and which go through."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

from leyline_adapters.proxy.about import JSON, SESSIONS, answer_about
from leyline_adapters.proxy.anthropic import Messages
from leyline_adapters.proxy.asgi import HungUp, Incoming, Receive, Send, respond
from leyline_adapters.proxy.body import Body, NotAnObject
from leyline_adapters.proxy.calls import Call, Scope, told
from leyline_adapters.proxy.dialect import Dialect, Unmanaged
from leyline_adapters.proxy.engine import Engine
from leyline_adapters.proxy.openai import ChatCompletions
from leyline_adapters.proxy.problems import Api, problem
from leyline_adapters.proxy.relay import Cut, relay
from leyline_adapters.proxy.sessions import Sessions
from leyline_adapters.proxy.turns import ManagedCall
from leyline_adapters.proxy.upstream import MARKER, Broken, Upstream
from leyline_agent._version import __version__
from leyline_agent.errors import CallRefused, LeylineError
from leyline_agent.wrapping.refusal import check_may_pass

__all__ = ["Proxy"]

logger = logging.getLogger("leyline.proxy")

_DIALECTS: Mapping[str, Dialect] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/messages": Messages(),
}


class Proxy:
    """The ASGI application.

    Args:
        upstream: where requests go.
        engine: tells which adapter the sessions take.
        sessions: whose turns they are.
    """

    def __init__(self, upstream: Upstream, engine: Engine, sessions: Sessions) -> None:
        self.upstream = upstream
        self.engine = engine
        self.sessions = sessions
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live as long as the server does."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:  # A websocket, which OpenAI's realtime API takes.
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.upstream:
            await self.engine.look()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            call = Call.of(scope)
        except LeylineError as error:
            api = _api(scope["path"])
            await respond(send, 400, JSON, problem(api, 400, "invalid_session", str(error)))
            return
        if (MARKER, self.upstream.marker) in call.headers:
            body = problem(_api(call.path), 508, "loop_detected", _loop(self.upstream.url))
            await respond(send, 508, JSON, body)
            return
        incoming = Incoming(scope, receive)
        self._in_flight += 1
        try:
            await incoming.until_hang_up(self._answer(call, incoming, send))
        except Broken as error:
            logger.warning("%s %s: %s", call.method, call.path, error)
            body = problem(_api(call.path), error.status, error.kind, str(error))
            await respond(send, error.status, JSON, body)
        except (HungUp, Cut, asyncio.CancelledError):
            pass  # Nobody is there, or is to see an end: it broke upstream, or the proxy stops.
        finally:
            self._in_flight -= 1

    async def _answer(self, call: Call, incoming: Incoming, send: Send) -> None:
        if call.path == "/health" and call.method == "GET":
            await respond(send, 200, JSON, json.dumps(self._health()).encode())
        elif call.path == SESSIONS or call.path.startswith("/v1/leyline/"):
            await answer_about(self.sessions, call, send)
        elif call.method == "POST" and call.path in _DIALECTS:
            await self._complete(_DIALECTS[call.path], call, await incoming.whole(), send)
        else:
            body = incoming.pieces() if incoming.has_body else b""
            await relay(self.upstream, call, body, send, [], incoming.length)

    async def _complete(self, dialect: Dialect, call: Call, data: bytes, send: Send) -> None:
        """A call to complete a chat: a turn, or, with the reason in a header, as it is.

        Refused where it is no turn and a policy redacts.
        """
        try:
            asked = dialect.asked(Body(data, ("messages", "tools")))
            adapter = await self.engine.adapter(dialect, call.headers)
            turn = self.sessions.begin(
                call, dialect, adapter, asked.messages, asked.tools, **asked.rest
            )
        except Broken:
            raise
        except (NotAnObject, Unmanaged) as error:
            reason = f"the request is no turn: {error}"
        except LeylineError as error:
            reason = f"{type(error).__name__}: {error}"
        except Exception as error:  # A fault in a pin function or a journal's disk.
            logger.exception("a call cannot be edited")
            reason = f"{type(error).__name__}: {error}"
        else:
            await ManagedCall(self.upstream, dialect, call, asked, turn).answer(send)
            return
        try:
            check_may_pass(self.sessions.policy.redacts, reason)
        except CallRefused as error:
            logger.error("%s", error)
            body = problem(_api(call.path), 500, "call_refused", str(error))
            await respond(send, 500, JSON, body)
            return
        logger.warning("a call goes out unedited: %s", reason)
        await relay(self.upstream, call, data, send, told({"Leyline-Bypassed": reason}))

    def _health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "version": __version__,
            "upstream": self.upstream.url,
            "adapter": self.engine.name,
            "sessions": len(self.sessions),
            "in_flight": self._in_flight - 1,
        }


def _loop(upstream: str) -> str:
    return (
        f"the request came back to the proxy that sent it on: its upstream, {upstream}, leads here "
        "again; start it with --upstream at the provider"
    )


def _api(path: str) -> Api:
    return "anthropic" if "/messages" in path else "openai"
