"""Held streams: nothing is passed on before it is known whether the reply is for the caller.

It is known with the name of the first tool that the reply calls, or when it ends without a call. A
reply that begins with a recall is read to its end; if it is nothing else, the next call's stream
takes its place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, Protocol

from leyline_agent.recall.exchange import NAME
from leyline_agent.wrapping.streams import Assembling, Assembly

__all__ = ["held", "held_async"]

Hear = Callable[[Any, Callable[[Any], None]], None]


class _Advancing(Protocol):
    """Who knows whether a reply is for the caller."""

    def advance(self, response: Any) -> bool:
        """Whether it is not, and a call is to be made again."""
        ...


class _Listening:
    """What is known of one stream.

    Args:
        stream: the library's.
        hear: lets figures be heard that the library keeps to itself.
        assembly: of whoever reads the stream that is passed on.
        reply: an empty one.
    """

    def __init__(self, stream: Any, hear: Hear, assembly: Assembling, reply: Assembling) -> None:
        self.chunks: list[Any] = []
        self._reply = reply
        self._assembly = assembly
        assembly.forget_figures()
        hear(stream, self._note)

    def _note(self, chunk: Any) -> None:
        self._reply.note(chunk)
        self._assembly.note(chunk)

    def add(self, chunk: Any) -> bool:
        """Whether it is known now that the reply is for the caller."""
        self.chunks.append(chunk)
        self._reply.add(chunk)
        called = self._reply.first_call
        return self._reply.several or (called != NAME if called else self._reply.finished)

    @property
    def recalls(self) -> bool:
        """Whether the reply begins with a recall."""
        return self._reply.first_call == NAME

    def is_hidden(self, exchange: _Advancing) -> bool:
        """Whether the reply, now whole, is not for the caller."""
        return self.recalls and exchange.advance(self._reply.response())


def held(
    first: Any,
    again: Callable[[], Any],
    exchange: _Advancing,
    hear: Hear,
    assembly: Assembling,
    new: Callable[[], Assembling] = Assembly,
) -> Generator[Any, None, None]:
    """The chunks of the first stream whose reply is for the caller.

    Args:
        first: the stream of the call that was made.
        again: makes the call with what `exchange` has to send next.
        exchange: is told of replies.
        hear: as in `Library.hear`.
        assembly: gets the figures that are heard.
        new: makes an empty assembly of the library's.
    """
    stream = first
    try:
        while True:
            listening = _Listening(stream, hear, assembly, new())
            chunks = iter(stream)
            try:
                for chunk in chunks:
                    if listening.add(chunk):
                        break
            except Exception:  # Broken off: the caller gets what came, and then the error.
                if not listening.recalls:
                    yield from listening.chunks
                raise
            if not listening.is_hidden(exchange):
                yield from listening.chunks
                yield from chunks
                return
            stream = again()
    finally:
        close = getattr(stream, "close", None)
        if stream is not first and close is not None:
            close()


async def held_async(
    first: Any,
    again: Callable[[], Awaitable[Any]],
    exchange: _Advancing,
    hear: Hear,
    assembly: Assembling,
    new: Callable[[], Assembling] = Assembly,
) -> AsyncGenerator[Any, None]:
    """`held` for asynchronous streams."""
    stream = first
    try:
        while True:
            listening = _Listening(stream, hear, assembly, new())
            chunks = aiter(stream)
            try:
                async for chunk in chunks:
                    if listening.add(chunk):
                        break
            except Exception:  # As in `held`.
                if not listening.recalls:
                    for held_back in listening.chunks:
                        yield held_back
                raise
            if not listening.is_hidden(exchange):
                for held_back in listening.chunks:
                    yield held_back
                async for chunk in chunks:
                    yield chunk
                return
            stream = await again()
    finally:
        close = getattr(stream, "aclose", None) or getattr(stream, "close", None)
        if stream is not first and close is not None:
            await close()
