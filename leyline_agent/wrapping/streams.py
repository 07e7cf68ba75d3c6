"""Streams: passed on chunk by chunk, put together on the way, and told to the turn at the end.

Behind the last words of a reply come its usage and the engine's receipt. They are fetched before
the last words are handed on, so that a consumer who stops there leaves a finished turn.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
)
from contextlib import aclosing, closing
from typing import Any, Protocol

from leyline_agent.message import Message
from leyline_agent.response import as_dict

__all__ = [
    "DROPPED",
    "Assembling",
    "Assembly",
    "AsyncStream",
    "Stream",
    "Waiting",
    "as_it_is",
    "heard",
    "tee",
    "tee_async",
]


DROPPED = object()
"""What a chunk is converted to that is not handed on."""


class Waiting(Protocol):
    """Who waits for the end of a stream."""

    def answered(self, response: Any) -> None:
        """The reply is whole."""
        ...

    def failed(self, error: BaseException | str) -> None:
        """It broke off. Of no effect once answered."""
        ...


class Assembling(Protocol):
    """Puts a stream together while it goes by."""

    @property
    def finished(self) -> bool:
        """Whether the only reply has ended, though figures may follow."""
        ...

    @property
    def first_call(self) -> str:
        """The name of the first tool called; "" while there is none."""
        ...

    @property
    def several(self) -> bool:
        """Whether there is more than one reply."""
        ...

    def add(self, chunk: Any) -> None:
        """Take one piece into account."""
        ...

    def note(self, chunk: Any) -> None:
        """Take the figures in a piece into account, and nothing else."""
        ...

    def forget_figures(self) -> None:
        """Drop the figures noted so far: they were another stream's."""
        ...

    def response(self) -> dict[str, Any] | None:
        """The completion; None when no piece told anything of one."""
        ...


class Assembly:
    """Chunks of a chat completion, or pieces of text, put together to a completion."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._finish_reason: str | None = None
        self._extras: dict[str, Any] = {}
        self._heard = self._several = False

    @property
    def finished(self) -> bool:
        """Whether the only reply has ended, though figures may follow."""
        return self._finish_reason is not None and not self._several

    @property
    def first_call(self) -> str:
        """The name of the first tool called; "" while there is none."""
        return str(self._calls[min(self._calls)]["function"]["name"]) if self._calls else ""

    @property
    def several(self) -> bool:
        """Whether there is more than one reply."""
        return self._several

    def add(self, chunk: Any) -> None:
        """Take one chunk into account; what is no chunk of a completion is ignored."""
        if isinstance(chunk, str):
            self._heard = True
            self._content.append(chunk)
            return
        body = as_dict(chunk) or {}
        self.note(body)
        for choice in body.get("choices") or ():
            if choice.get("index"):
                self._several = True
            else:
                self._add_choice(choice)

    def note(self, chunk: Any) -> None:
        """Take the figures in a chunk into account, and nothing else."""
        for key in ("usage", "leyline"):
            found = chunk.get(key) if isinstance(chunk, Mapping) else getattr(chunk, key, None)
            if found:
                self._extras[key] = found

    def forget_figures(self) -> None:
        """Drop the figures noted so far: they were another stream's."""
        self._extras.clear()

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        self._heard = True
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta") or {}
        if isinstance(delta.get("content"), str):
            self._content.append(delta["content"])
        for position, call in enumerate(delta.get("tool_calls") or ()):
            place = call.get("index")
            self._add_call(position if place is None else place, call)

    def _add_call(self, place: int, piece: Mapping[str, Any]) -> None:
        empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        call = self._calls.setdefault(place, empty)
        function = piece.get("function") or {}
        call["id"] = call["id"] or piece.get("id") or ""
        call["function"]["name"] = call["function"]["name"] or function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""

    def response(self) -> dict[str, Any] | None:
        """The completion; None when no chunk told anything of one."""
        if not self._heard:
            return None
        message: Message = {"role": "assistant", "content": "".join(self._content)}
        if self._calls:
            message["tool_calls"] = [self._calls[place] for place in sorted(self._calls)]
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return {"choices": [choice], **self._extras}


def as_it_is(chunk: Any) -> Any:
    """The chunk."""
    return chunk


def tee(
    chunks: Generator[Any, None, None],
    waiting: Waiting,
    convert: Callable[[Any], Any] = as_it_is,
    assembly: Assembling | None = None,
) -> Generator[Any, None, None]:
    """The chunks, converted; `waiting` learns how they end, and `chunks` is closed."""
    assembly = assembly or Assembly()
    with closing(chunks):
        try:
            for chunk in chunks:
                assembly.add(chunk)
                if assembly.finished:
                    break
                yield from _given(convert, chunk)
            else:
                waiting.answered(assembly.response())
                return
            rest, broken = _drained(chunks, assembly)
        except BaseException as error:
            waiting.failed("abandoned" if isinstance(error, GeneratorExit) else error)
            raise
        waiting.answered(assembly.response())
        yield from _given(convert, chunk, *rest)
        if broken is not None:
            raise broken


def _given(convert: Callable[[Any], Any], *chunks: Any) -> Iterator[Any]:
    """The chunks, converted; those that are dropped are not for the caller."""
    return (made for made in map(convert, chunks) if made is not DROPPED)


def _drained(chunks: Iterator[Any], assembly: Assembling) -> tuple[list[Any], Exception | None]:
    """What follows the last words, and the error that ended it: the reply itself is whole."""
    rest: list[Any] = []
    try:
        for chunk in chunks:
            assembly.add(chunk)
            rest.append(chunk)
    except Exception as error:  # Not ours to judge; the consumer gets it where it happened.
        return rest, error
    return rest, None


async def tee_async(
    chunks: AsyncGenerator[Any, None],
    waiting: Waiting,
    convert: Callable[[Any], Any] = as_it_is,
    assembly: Assembling | None = None,
) -> AsyncGenerator[Any, None]:
    """`tee` for asynchronous streams."""
    assembly = assembly or Assembly()
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                assembly.add(chunk)
                if assembly.finished:
                    break
                for made in _given(convert, chunk):
                    yield made
            else:
                waiting.answered(assembly.response())
                return
            rest, broken = await _drained_async(chunks, assembly)
        except BaseException as error:
            waiting.failed("abandoned" if isinstance(error, GeneratorExit) else error)
            raise
        waiting.answered(assembly.response())
        for made in _given(convert, chunk, *rest):
            yield made
        if broken is not None:
            raise broken


async def _drained_async(
    chunks: AsyncIterator[Any], assembly: Assembling
) -> tuple[list[Any], Exception | None]:
    rest: list[Any] = []
    try:
        async for chunk in chunks:
            assembly.add(chunk)
            rest.append(chunk)
    except Exception as error:  # As in `_drained`.
        return rest, error
    return rest, None


class _Heard:
    """A provider's stream inside a library's own, whose chunks are heard before it reads them."""

    def __init__(self, stream: Any, hear: Callable[[Any], None]) -> None:
        self._leyline_stream = stream
        self._leyline_hear = hear

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leyline_stream, name)


class _HeardStream(_Heard):
    """A synchronous one."""

    def __iter__(self) -> Iterator[Any]:
        self._leyline_stream = iter(self._leyline_stream)
        return self

    def __next__(self) -> Any:
        chunk = next(self._leyline_stream)
        self._leyline_hear(chunk)
        return chunk


class _HeardAsyncStream(_Heard):
    """An asynchronous one."""

    def __aiter__(self) -> AsyncIterator[Any]:
        self._leyline_stream = aiter(self._leyline_stream)
        return self

    async def __anext__(self) -> Any:
        chunk = await anext(self._leyline_stream)
        self._leyline_hear(chunk)
        return chunk


class _HeardEitherWay(_HeardStream, _HeardAsyncStream):
    """One that can be read either way; which way, whoever reads it knows."""


def heard(stream: Any, hear: Callable[[Any], None]) -> Any:
    """A stream whose chunks are heard; what is no stream comes back as it is."""
    is_async, is_sync = hasattr(stream, "__anext__"), hasattr(stream, "__next__")
    if is_async and is_sync:
        return _HeardEitherWay(stream, hear)
    if is_async:
        return _HeardAsyncStream(stream, hear)
    return _HeardStream(stream, hear) if is_sync else stream


class _Standing:
    """Stands for a library's stream object: the same attributes, and an instance of its class."""

    def __init__(self, stream: Any, chunks: Any, waiting: Waiting) -> None:
        self._leyline_stream = stream
        self._leyline_chunks = chunks
        self._leyline_waiting = waiting

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._leyline_stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leyline_stream, name)

    def __del__(self) -> None:
        self._leyline_waiting.failed("abandoned")


class Stream(_Standing):
    """A synchronous stream."""

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._leyline_chunks)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading."""
        self._leyline_chunks.close()
        self._leyline_waiting.failed("abandoned")
        close = getattr(self._leyline_stream, "close", None)
        if close is not None:
            close()


class AsyncStream(_Standing):
    """An asynchronous stream."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._leyline_chunks)

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading."""
        await self._leyline_chunks.aclose()
        self._leyline_waiting.failed("abandoned")
        for name in ("aclose", "close"):
            close = getattr(self._leyline_stream, name, None)
            if close is not None:
                await close()
                return

    close = aclose
