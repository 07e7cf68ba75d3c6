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
from leyline_agent.wrapping.foreign import Conversation, conversation
from leyline_agent.wrapping.held import held, held_async
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
from leyline_agent.wrapping.streams import Assembly, AsyncStream, Stream, tee, tee_async

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
            chunks = call.passed_on_async(made, call.scope, lambda: _at_once(call.again(function)))
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

        return stream_async

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            call = begin(args, kwargs)
            made = function(*call.args, **call.kwargs)
            yield from call.passed_on(made, call.scope, lambda: call.again(function))

        return stream

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            call = begin(args, kwargs)
            return await call.awaited(function(*call.args, **call.kwargs), function)

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
        foreign = conversation(request)
        if foreign is not None:
            request["messages"] = foreign.messages
            request |= {} if foreign.tools is None else {"tools": foreign.tools}
        turn = open_turn(self._pool, self._wrapped.bypassed, request)
        exchange = TurnExchange(turn.request if turn else request, None, turn)
        scope = CallScope(self._wrapped.adapter, exchange, {})
        give = functools.partial(self._give_all, foreign)
        lost = give(bound, scope)
        return _Call(bound, scope, lambda: self._tell(lost, scope), give)

    def _give_all(
        self, foreign: Conversation | None, bound: inspect.BoundArguments, scope: CallScope
    ) -> list[str]:
        """Pass on what the session sends; what the function has no parameter for comes back."""
        sent = scope.turn.request
        scope.extras = {key: sent[key] for key in sent if key not in ("messages", "tools")}
        if scope.turn.turn:
            if foreign is not None:
                sent = foreign.restored(sent["messages"], sent.get("tools"))
            bound.arguments[self._name] = sent["messages"]
            if "tools" in sent:  # It came from there, so there is a place for it.
                self._give(bound, "tools", sent["tools"])
        return [key for key in scope.extras if not self._give(bound, key, scope.extras[key])]

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

    bound: inspect.BoundArguments
    scope: CallScope
    tell: Callable[[], None]
    give: Callable[[inspect.BoundArguments, CallScope], object]

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments by place."""
        return self.bound.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """The arguments by name."""
        return self.bound.kwargs

    def again(self, function: Callable[..., Any]) -> Any:
        """Call the function with what comes behind a recall."""
        self.give(self.bound, self.scope)
        with entered(self.scope):
            return function(*self.args, **self.kwargs)

    def run(self, function: Callable[..., Any]) -> Any:
        """The function's result, its turn finished; a stream's when it ends."""
        with self._failing():
            with entered(self.scope):
                result = function(*self.args, **self.kwargs)
            if inspect.isawaitable(result):
                return self.awaited(result, function)
            while not _is_stream(result) and self.scope.advance(result):
                result = self.again(function)
        if hasattr(result, "__anext__") and not hasattr(result, "__next__"):
            late = self.passed_on_async(result, None, lambda: _at_once(self.again(function)))
            return self._settled(AsyncStream(result, late, self.scope))
        return self._settled(self._stream(result, function))

    async def awaited(self, result: Awaitable[Any], function: Callable[..., Any]) -> Any:
        """`run` for a function that gives an awaitable."""
        with self._failing():
            with entered(self.scope):
                value = await result
            while not _is_stream(value) and self.scope.advance(value):
                with entered(self.scope):
                    value = await self.again(function)
        if hasattr(value, "__anext__") and as_dict(value) is None:
            chunks = self.passed_on_async(value, None, lambda: self.again(function))
            return AsyncStream(value, chunks, self.scope)
        return self._settled(self._stream(value, function))

    def _stream(self, result: Any, function: Callable[..., Any]) -> Any:
        if not hasattr(result, "__next__"):
            return result
        chunks = self.passed_on(result, None, lambda: self.again(function))
        return Stream(result, chunks, self.scope)

    def passed_on(
        self, made: Any, scope: CallScope | None, again: Callable[[], Any]
    ) -> Generator[Any, None, None]:
        """The chunks of a stream, and its turn finished at their end."""
        assembly = Assembly()
        chunks = iter(made)
        if self.scope.may_advance:
            chunks = held(made, again, self.scope, _deaf, assembly)
        return tee(stepped(chunks, scope), self.scope, self.scope.delivery(), assembly)

    def passed_on_async(
        self, made: Any, scope: CallScope | None, again: Callable[[], Awaitable[Any]]
    ) -> AsyncGenerator[Any, None]:
        """`passed_on` for asynchronous streams."""
        assembly = Assembly()
        chunks = aiter(made)
        if self.scope.may_advance:
            chunks = held_async(made, again, self.scope, _deaf, assembly)
        return tee_async(stepped_async(chunks, scope), self.scope, self.scope.delivery(), assembly)

    def _settled(self, result: Any) -> Any:
        with self._failing():
            self.tell()
        if isinstance(result, Stream | AsyncStream):
            return result
        self.scope.answered(result)
        return self.scope.delivered(result)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.scope.failed(error)
            raise


def _is_stream(result: Any) -> bool:
    return hasattr(result, "__next__") or hasattr(result, "__anext__")


async def _at_once(result: Any) -> Any:
    return result


def _deaf(stream: Any, note: Callable[[Any], None]) -> None:
    """A function's own stream keeps no figures to itself."""
