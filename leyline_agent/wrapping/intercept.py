"""Interception: a library's function whose calls the active scope takes up.

The call goes where it went, with what the session made of it, or to an adapter that makes it; what
comes back is of the library's own types either way.
"""

from __future__ import annotations

import functools
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
)
from contextlib import contextmanager
from typing import Any

from leyline_agent.adapter import CallingAdapter
from leyline_agent.wrapping.exchange import Exchange
from leyline_agent.wrapping.held import held, held_async
from leyline_agent.wrapping.libraries import Library, Translator
from leyline_agent.wrapping.scope import active, entered, stepped, stepped_async
from leyline_agent.wrapping.streams import (
    DROPPED,
    AsyncStream,
    Stream,
    as_it_is,
    tee,
    tee_async,
)

__all__ = [
    "failing",
    "intercepted",
    "intercepted_async",
    "streamed",
    "streamed_async",
    "taken_over_stream",
    "taken_over_stream_async",
]


def intercepted(
    original: Callable[..., Any], library: Library, *, method: bool
) -> Callable[..., Any]:
    """`original` with its calls taken up by the active scope."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        scope = active(library.name)
        taken = library.taken(original, args[method:], kwargs) if scope else None
        if scope is None or taken is None or kwargs.get("acompletion"):
            return original(*args, **kwargs)
        exchange = scope.exchange(taken.request)
        with failing(exchange), entered(None):
            if exchange.caller is not None:
                return _taken_over(exchange, exchange.caller, library)

            def make() -> Any:
                return original(*args[:method], **taken.arguments(exchange.request))

            response = make()
            if library.streams(taken.request):
                return streamed(response, make, exchange, library)
            whole = library.whole(taken.request, response)
            while exchange.advance(whole):
                response = make()
                whole = library.whole(taken.request, response)
        exchange.answered(whole)
        return library.given(response, whole, exchange.delivered(whole))

    return call


def intercepted_async(
    original: Callable[..., Any], library: Library, *, method: bool
) -> Callable[..., Any]:
    """`intercepted` for a coroutine function."""

    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:
        scope = active(library.name)
        taken = library.taken(original, args[method:], kwargs) if scope else None
        if scope is None or taken is None:
            return await original(*args, **kwargs)
        exchange = scope.exchange(taken.request)
        with failing(exchange), entered(None):
            if exchange.caller is not None:
                return await _taken_over_async(exchange, exchange.caller, library)

            async def make() -> Any:
                return await original(*args[:method], **taken.arguments(exchange.request))

            response = await make()
            if library.streams(taken.request):
                return streamed_async(response, make, exchange, library)
            whole = library.whole(taken.request, response)
            while exchange.advance(whole):
                response = await make()
                whole = library.whole(taken.request, response)
        exchange.answered(whole)
        return library.given(response, whole, exchange.delivered(whole))

    return call


@contextmanager
def failing(exchange: Exchange) -> Iterator[None]:
    """Give the exchange up where the block raises."""
    try:
        yield
    except BaseException as error:
        exchange.failed(error)
        raise


def streamed(
    first: Any,
    make: Callable[[], Any],
    exchange: Exchange,
    library: Library,
    convert: Callable[[Any], Any] = as_it_is,
) -> Stream:
    """The stream in place of a call's, which `make` makes again after a recall."""
    assembly = library.assembly()
    if not exchange.may_advance:
        library.hear(first, assembly.note)
        chunks = stepped(iter(first), None)
        return Stream(first, tee(chunks, exchange, convert, assembly), exchange)
    hear, new = library.hear, library.assembly
    chunks = stepped(held(first, make, exchange, hear, assembly, new), None)
    cleaned = _then(library.cleaned(exchange.delivery()), convert)
    return Stream(first, tee(chunks, exchange, cleaned, assembly), exchange)


def streamed_async(
    first: Any,
    make: Callable[[], Awaitable[Any]],
    exchange: Exchange,
    library: Library,
    convert: Callable[[Any], Any] = as_it_is,
) -> AsyncStream:
    """`streamed` for asynchronous streams."""
    assembly = library.assembly()
    if not exchange.may_advance:
        library.hear(first, assembly.note)
        chunks = stepped_async(aiter(first), None)
        return AsyncStream(first, tee_async(chunks, exchange, convert, assembly), exchange)
    hear, new = library.hear, library.assembly
    chunks = stepped_async(held_async(first, make, exchange, hear, assembly, new), None)
    cleaned = _then(library.cleaned(exchange.delivery()), convert)
    return AsyncStream(first, tee_async(chunks, exchange, cleaned, assembly), exchange)


def _then(clean: Callable[[Any], Any], convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Both, one after the other, unless the first drops the piece."""

    def both(piece: Any) -> Any:
        cleaned = clean(piece)
        return cleaned if cleaned is DROPPED else convert(cleaned)

    return both


def _taken_over(exchange: Exchange, caller: CallingAdapter, library: Library) -> Any:
    if library.asked(exchange.request).get("stream"):
        return taken_over_stream(exchange, caller, library)
    body = caller.complete(library.asked(exchange.request))
    while exchange.advance(body):
        body = caller.complete(library.asked(exchange.request))
    exchange.answered(body)
    return library.completion(exchange.delivered(body))


async def _taken_over_async(exchange: Exchange, caller: CallingAdapter, library: Library) -> Any:
    if library.asked(exchange.request).get("stream"):
        return taken_over_stream_async(exchange, caller, library)
    body = await caller.acomplete(library.asked(exchange.request))
    while exchange.advance(body):
        body = await caller.acomplete(library.asked(exchange.request))
    exchange.answered(body)
    return library.completion(exchange.delivered(body))


def taken_over_stream(exchange: Exchange, caller: CallingAdapter, library: Library) -> Stream:
    """An adapter's answer as a stream of the library's."""

    def make() -> Any:
        chunks = caller.stream(library.asked(exchange.request))
        translator = library.translator()
        return chunks if translator is None else _translated(chunks, translator)

    return streamed(make(), make, exchange, library, library.chunk)


def taken_over_stream_async(
    exchange: Exchange, caller: CallingAdapter, library: Library
) -> AsyncStream:
    """`taken_over_stream` for an asynchronous stream."""

    def make() -> Any:
        chunks = caller.astream(library.asked(exchange.request))
        translator = library.translator()
        return chunks if translator is None else _translated_async(chunks, translator)

    async def again() -> Any:
        return make()

    return streamed_async(make(), again, exchange, library, library.chunk)


def _translated(chunks: Iterator[Any], translator: Translator) -> Generator[Any, None, None]:
    try:
        for chunk in chunks:
            yield from translator.add(chunk)
        yield from translator.end()
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


async def _translated_async(
    chunks: AsyncIterator[Any], translator: Translator
) -> AsyncGenerator[Any, None]:
    try:
        async for chunk in chunks:
            for piece in translator.add(chunk):
                yield piece
        for piece in translator.end():
            yield piece
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
