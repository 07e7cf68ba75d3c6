"""The little of ASGI that answers are made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from leyline_adapters.proxy.calls import Scope
from leyline_adapters.proxy.upstream import Headers

__all__ = ["HungUp", "Incoming", "Receive", "Send", "respond"]

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HungUp(Exception):
    """The client went away while it sent its request."""


class Incoming:
    """A request's body, and whether its client is still there.

    Args:
        scope: the request's head.
        receive: gives its body, and tells when the client has gone.

    Attributes:
        has_body: whether it has one.
        length: the line that says how long the body is, where the client has sent one.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        given = {name.lower(): value for name, value in scope["headers"]}
        self.has_body = not given.keys().isdisjoint({b"content-length", b"transfer-encoding"})
        known = b"content-length" in given and b"transfer-encoding" not in given
        self.length: Headers = [(b"content-length", given[b"content-length"])] if known else []
        self._receive = receive
        self._is_read = asyncio.Event()
        if not self.has_body:
            self._is_read.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, piece by piece. Raises HungUp."""
        more = True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise HungUp
            more = event.get("more_body", False)
            if event.get("body"):
                yield event["body"]
        self._is_read.set()

    async def whole(self) -> bytes:
        """The whole body. Raises HungUp."""
        return b"".join([piece async for piece in self.pieces()])

    async def until_hang_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; a client that goes away once its request is read cancels it."""
        task = asyncio.current_task()
        assert task is not None
        watching = asyncio.create_task(self._watch(task))
        try:
            await work
        finally:
            watching.cancel()  # An answer that is sent whole looks like a hang-up, too.

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        await self._is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        task.cancel()


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer at once."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
