"""Around a model-call function: it gets the view in place of the messages it was called with."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from leyline_agent.response import as_dict
from leyline_agent.warning import warn
from leyline_agent.wrapping.instrument import install
from leyline_agent.wrapping.scope import (
    CallScope,
    TurnExchange,
    active,
    entered,
    open_turn,
    stepped,
    stepped_async,
)
from leyline_agent.wrapping.settings import Wrapped
from leyline_agent.wrapping.streams import AsyncStream, Stream, tee, tee_async

__all__ = ["around_call", "messages_parameter"]

logger = logging.getLogger("leyline.wrap")


def messages_parameter(function: Callable[..., Any], *, first: bool) -> str | None:
    """The parameter that takes the messages: `messages`, else the first one if `first`."""
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if "messages" in names:
        return "messages"
    candidates = [name for name in names if name not in ("self", "cls")]
    return candidates[0] if first and candidates else None


def around_call(function: Callable[..., Any], wrapped: Wrapped, name: str) -> Callable[..., Any]:
    """`function` with each call a turn of the session that its messages continue."""
    begin = _Beginning(function, wrapped, name)

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            call = begin(args, kwargs)
            made = function(*call.args, **call.kwargs)
            chunks = tee_async(stepped_async(made, call.scope), call.scope)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

        return stream_async

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            call = begin(args, kwargs)
            made = function(*call.args, **call.kwargs)
            yield from tee(stepped(made, call.scope), call.scope)

        return stream

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            call = begin(args, kwargs)
            return await call.awaited(function(*call.args, **call.kwargs))

        return run_async

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        call = begin(args, kwargs)
        return call.run(function)

    return run


class _Beginning:
    """Opens the turn of each call and puts the view in the place of its messages."""

    def __init__(self, function: Callable[..., Any], wrapped: Wrapped, name: str) -> None:
        self._signature = inspect.signature(function)
        self._any_keyword = next(
            (p.name for p in self._signature.parameters.values() if p.kind is p.VAR_KEYWORD), None
        )
        self._wrapped = wrapped
        self._name = name
        self._pool = wrapped.pool()

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Call:
        install()
        around = active()
        if around is not None:
            around.reached = True
        bound = self._signature.bind(*args, **kwargs)
        request = {"messages": bound.arguments.get(self._name)}
        for key in ("tools", "extra_body"):
            value = self._argument(bound, key)
            if value is not None:
                request[key] = value
        turn = open_turn(self._pool, self._wrapped.bypassed, request)
        sent = turn.request if turn else request
        extras = {key: sent[key] for key in sent if key not in ("messages", "tools")}
        if turn:
            bound.arguments[self._name] = sent["messages"]
        lost = [key for key in extras if not self._give(bound, key, extras[key])]
        exchange = TurnExchange(sent, None, turn)
        scope = CallScope(self._wrapped.adapter, exchange, extras)
        return _Call(bound.args, bound.kwargs, scope, lambda: self._tell(lost, scope))

    def _argument(self, bound: inspect.BoundArguments, key: str) -> Any:
        if key in self._signature.parameters:
            return bound.arguments.get(key)
        return bound.arguments.get(self._any_keyword or "", {}).get(key)

    def _give(self, bound: inspect.BoundArguments, key: str, value: Any) -> bool:
        """Pass an addition of the adapter on, if the function has a parameter for it."""
        if key in self._signature.parameters:
            bound.arguments[key] = value
        elif self._any_keyword is not None:
            keywords = bound.arguments.get(self._any_keyword, {})
            bound.arguments[self._any_keyword] = {**keywords, key: value}
        else:
            return False
        return True

    def _tell(self, lost: list[str], scope: CallScope) -> None:
        """Say once that the engine learns of no edits: messages alone reach it."""
        if lost and not scope.reached and not self._wrapped.told:
            self._wrapped.told = True
            text = (
                f"{self._wrapped.name} takes no {', '.join(lost)} and calls no library that could: "
                "the engine is not told of edits"
            )
            logger.warning("%s", text)
            warn(text)


@dataclass
class _Call:
    """One call of the function: what to call it with, and what becomes of its result."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    scope: CallScope
    tell: Callable[[], None]

    def run(self, function: Callable[..., Any]) -> Any:
        """The function's result, its turn finished; a stream's when it ends."""
        with self._failing(), entered(self.scope):
            result = function(*self.args, **self.kwargs)
        return self.awaited(result) if inspect.isawaitable(result) else self._settled(result)

    async def awaited(self, result: Awaitable[Any]) -> Any:
        """`run` for a function that gives an awaitable."""
        with self._failing(), entered(self.scope):
            value = await result
        if hasattr(value, "__anext__") and as_dict(value) is None:
            chunks = tee_async(stepped_async(aiter(value), None), self.scope)
            return AsyncStream(value, chunks, self.scope)
        return self._settled(value)

    def _settled(self, result: Any) -> Any:
        with self._failing():
            self.tell()
        if hasattr(result, "__next__"):
            chunks = tee(stepped(iter(result), None), self.scope)
            return Stream(result, chunks, self.scope)
        if hasattr(result, "__anext__"):
            late = tee_async(stepped_async(aiter(result), None), self.scope)
            return AsyncStream(result, late, self.scope)
        self.scope.answered(result)
        return result

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.scope.failed(error)
            raise
