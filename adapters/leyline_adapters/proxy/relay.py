"""Relaying: requests that are no turns, and answers that are nobody's business, as they are."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence

from leyline_adapters.proxy.asgi import Send
from leyline_adapters.proxy.calls import Call
from leyline_adapters.proxy.upstream import Answer, Broken, Headers, Upstream

__all__ = ["Cut", "relay", "relayed"]

logger = logging.getLogger("leyline.proxy")


class Cut(Exception):
    """An answer that has begun cannot be ended well; its client is to see it broken."""


async def relay(
    upstream: Upstream,
    call: Call,
    body: bytes | AsyncIterator[bytes],
    send: Send,
    said: Headers,
    length: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send a request on, and its answer back.

    Args:
        upstream: where it goes.
        call: its head.
        body: its body, whole or in pieces.
        send: takes the answer.
        said: header lines that the answer gets besides its own.
        length: the line that says how long a body in pieces is; without it, it goes chunked.

    Raises:
        Broken: no answer came.
        Cut: it broke off.
    """
    address = upstream.address(call.path, call.query)
    async with upstream.send(call.method, address, [*call.headers, *length], body) as answer:
        await relayed(answer, send, said)


async def relayed(answer: Answer, send: Send, said: Headers) -> None:
    """An answer as it is, piece by piece. Raises Cut."""
    headers = [*answer.headers, *answer.length, *said]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    try:
        async for piece in answer.chunks():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except Broken as error:
        logger.warning("%s", error)
        raise Cut from error
    await send({"type": "http.response.body", "body": b""})
