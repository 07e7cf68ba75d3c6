"""Scopes: what a wrapped function does to the model calls made while it runs.

A scope travels in a context variable, so it follows tasks and `asyncio.to_thread`; `instrument`
carries it into threads. While a call of the library itself runs there is no scope: what a
library calls in turn is not edited twice.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from leyline_agent.adapter import Adapter, CallingAdapter, Request
from leyline_agent.errors import LeylineError
from leyline_agent.response import as_dict
from leyline_agent.session import Session
from leyline_agent.turn import Turn
from leyline_agent.warning import LeylineWarning, warn
from leyline_agent.wrapping.exchange import Exchange
from leyline_agent.wrapping.pool import SessionPool
from leyline_agent.wrapping.refusal import check_may_pass
from leyline_agent.wrapping.streams import as_it_is

__all__ = [
    "CallScope",
    "Exchange",
    "LoopScope",
    "Scope",
    "active",
    "carried",
    "cover",
    "current_session",
    "entered",
    "is_scoped",
    "open_turn",
    "pass_by",
    "stepped",
    "stepped_async",
    "uncover",
]

logger = logging.getLogger("leyline.wrap")


class _Unset:
    """No scope was entered, and none shut out: what is instrumented for the process holds."""


_UNSET = _Unset()
_scope: ContextVar[Scope | None | _Unset] = ContextVar("leyline_scope", default=_UNSET)
_process: dict[str, Scope] = {}
"""By library, the scope of all its calls that no other takes up."""


class Scope(Protocol):
    """What stands between a wrapped function and a library.

    Attributes:
        reached: whether a model call was made in it.
    """

    def exchange(self, request: Request) -> Exchange:
        """Take up a call."""
        ...

    reached: bool

    @property
    def session(self) -> Session | None:
        """The session used last."""
        ...


def active(library: str = "") -> Scope | None:
    """The innermost scope the running code is in; of a library's call, else the process's."""
    scope = _scope.get()
    return _process.get(library) if isinstance(scope, _Unset) else scope


def is_scoped() -> bool:
    """Whether the running code is in a scope, or in a library's call."""
    return not isinstance(_scope.get(), _Unset)


def cover(library: str, scope: Scope) -> bool:
    """Let a scope take up all calls of a library; False where another does already."""
    return _process.setdefault(library, scope) is scope


def uncover(library: str, scope: Scope) -> None:
    """Take it back; nothing happens where the scope does not cover the library."""
    if _process.get(library) is scope:
        del _process[library]


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in the scope of whoever hands it to a thread: none, if there is none.

    A pool's worker may have been started in another scope.
    """
    scope = _scope.get()

    def run(*args: Any, **kwargs: Any) -> Any:
        token = _scope.set(scope)
        try:
            return function(*args, **kwargs)
        finally:
            _scope.reset(token)

    return run


@contextmanager
def entered(scope: Scope | None) -> Iterator[None]:
    """Run a block in a scope, or, with None, outside all."""
    token = _scope.set(scope)
    try:
        yield
    finally:
        _scope.reset(token)


def current_session() -> Session | None:
    """The session of the last model call in the wrapped function that is running; None outside.

    For loops that pin messages or declare edits themselves.
    """
    scope = active()
    return scope.session if scope else None


def stepped(chunks: Iterator[Any], scope: Scope | None) -> Generator[Any, None, None]:
    """The chunks, each made inside `scope`, or outside all when None."""
    done = object()
    try:
        while True:
            with entered(scope):
                chunk = next(chunks, done)
            if chunk is done:
                return
            yield chunk
    finally:
        if isinstance(chunks, Generator):
            chunks.close()


async def stepped_async(
    chunks: AsyncIterator[Any], scope: Scope | None
) -> AsyncGenerator[Any, None]:
    """`stepped` for asynchronous chunks."""
    done = object()
    try:
        while True:
            with entered(scope):
                chunk = await anext(chunks, done)
            if chunk is done:
                return
            yield chunk
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


@dataclass
class TurnExchange:
    """A call that is a turn of a session; or, without a turn, goes as it is."""

    request: Request
    caller: CallingAdapter | None
    turn: Turn | None

    @property
    def may_advance(self) -> bool:
        """Whether the reply may be a recall."""
        return self.turn is not None and self.turn.is_open and self.turn.may_advance

    def advance(self, response: Any) -> bool:
        """Whether it is one, answered here; whatever goes wrong with that is the harness's."""
        if self.turn is None or not self.turn.is_open:
            return False
        try:
            ahead = self.turn.advance(response)
        except Exception:
            logger.exception("a recall in turn %s was not answered", self.turn.commit.version)
            return False
        if ahead:
            self.request = self.turn.request
        return ahead

    def delivered(self, response: Any) -> Any:
        """The response without recalls."""
        return response if self.turn is None else self.turn.delivered(response)

    def delivery(self) -> Callable[[Any], Any]:
        """The same for chunks."""
        return as_it_is if self.turn is None else self.turn.delivery()

    def answered(self, response: Any) -> None:
        """Finish the turn; whatever goes wrong there must not cost the caller the response."""
        if self.turn is None or not self.turn.is_open:
            return
        try:
            self.turn.finish(response)
        except Exception:
            logger.exception("turn %s was answered but not kept", self.turn.commit.version)

    def failed(self, error: BaseException | str) -> None:
        """Give the turn up."""
        if self.turn is None or not self.turn.is_open:
            return
        try:
            self.turn.fail(error)
        except Exception:
            logger.exception("turn %s failed and could not be given up", self.turn.commit.version)


@dataclass
class LoopScope:
    """A running agent loop: every model call in it is a turn.

    Attributes:
        adapter: the sessions' adapter.
        pool: the sessions of the conversations in this run.
        bypassed: calls that went out unedited, each with the reason.
        reached: whether there was a model call, its own or a nested function's.
    """

    adapter: Adapter
    pool: SessionPool
    bypassed: deque[str]
    reached: bool = False

    @property
    def session(self) -> Session | None:
        """The session used last."""
        return self.pool.last

    def exchange(self, request: Request) -> TurnExchange:
        """A turn of the session the messages belong to."""
        self.reached = True
        turn = open_turn(self.pool, self.bypassed, request)
        caller = self.adapter if isinstance(self.adapter, CallingAdapter) else None
        return TurnExchange(turn.request if turn else request, caller, turn)


@dataclass
class CallScope:
    """A running model-call function whose turn is open already.

    A library call inside it gets what the adapter added to the request, or is made by the
    adapter. Its response is kept for the turn: the function may reduce it to a text.

    Attributes:
        adapter: the session's.
        turn: the call as a turn.
        extras: what the adapter added to the request, by name.
        response: the response of the library call; None when there was none.
        reached: whether there was a library call.
    """

    adapter: Adapter
    turn: TurnExchange
    extras: Request
    response: Any = None
    reached: bool = False

    @property
    def session(self) -> Session | None:
        """The session the turn belongs to; None where none could be opened."""
        return self.turn.turn.session if self.turn.turn else None

    def exchange(self, request: Request) -> InnerExchange:
        """The call with the adapter's additions."""
        self.reached = True
        whole = {**self.extras, **request}
        body = {**(request.get("extra_body") or {}), **self.extras.get("extra_body", {})}
        if body:
            whole["extra_body"] = body
        caller = self.adapter if isinstance(self.adapter, CallingAdapter) else None
        return InnerExchange(whole, caller, self)

    @property
    def may_advance(self) -> bool:
        """Whether the function's result may be a recall; one of a library call is dealt with."""
        return self.turn.may_advance

    def advance(self, result: Any) -> bool:
        """Whether it is one; the function is then called again."""
        return self.response is None and self.turn.advance(result)

    def delivered(self, result: Any) -> Any:
        """The result without recalls."""
        return result if self.response is not None else self.turn.delivered(result)

    def delivery(self) -> Callable[[Any], Any]:
        """The same for chunks."""
        clean = self.turn.delivery()
        return lambda chunk: chunk if self.reached else clean(chunk)

    def answered(self, result: Any) -> None:
        """The function has returned."""
        self.turn.answered(result if self.response is None else self.response)

    def failed(self, error: BaseException | str) -> None:
        """The function has raised, or its stream was abandoned."""
        self.turn.failed(error)


@dataclass
class InnerExchange:
    """A library call inside a model-call function."""

    request: Request
    caller: CallingAdapter | None
    scope: CallScope

    @property
    def may_advance(self) -> bool:
        """Whether the reply may be a recall."""
        return self.scope.turn.may_advance

    def advance(self, response: Any) -> bool:
        """Whether it is one; the messages of the function's own call go on with it."""
        turn = self.scope.turn
        before = len(turn.request["messages"])
        if not turn.advance(response):
            return False
        behind = turn.request["messages"][before:]
        body = {**(self.request.get("extra_body") or {}), **turn.request.get("extra_body", {})}
        self.request = {**self.request, "messages": [*self.request["messages"], *behind]}
        if body:
            self.request["extra_body"] = body
        return True

    def delivered(self, response: Any) -> Any:
        """The response without recalls."""
        return self.scope.turn.delivered(response)

    def delivery(self) -> Callable[[Any], Any]:
        """The same for chunks."""
        return self.scope.turn.delivery()

    def answered(self, response: Any) -> None:
        """Keep the response for the turn, as it came: the function gets it without recalls."""
        self.scope.response = as_dict(response) or response

    def failed(self, error: BaseException | str) -> None:
        """Nothing to do: the function may try again; its turn ends when it does."""


def open_turn(pool: SessionPool, bypassed: deque[str], request: Request) -> Turn | None:
    """A turn for a call; None when none can be opened, which must not cost the user the call.

    Raises:
        CallRefused: no turn can be opened, and a policy redacts.
        LeylineWarning: to a user to whom warnings are errors.
    """
    options = {key: value for key, value in request.items() if key not in ("messages", "tools")}
    try:
        return pool.begin(request["messages"], request.get("tools"), **options)
    except LeylineWarning:
        raise
    except LeylineError as error:
        reason = f"{type(error).__name__}: {error}"
    except Exception as error:  # A fault in an adapter, a pin function or a journal's disk.
        reason = f"{type(error).__name__}: {error}"
        logger.exception("a model call cannot be edited")
    check_may_pass(pool.redacts, reason)
    logger.warning("a model call goes out unedited: %s", reason)
    pass_by(bypassed, reason)
    return None


def pass_by(bypassed: deque[str], reason: str) -> None:
    """Note that a model call goes out unedited; of the first one the user is told.

    Raises:
        LeylineWarning: to a user to whom warnings are errors.
    """
    bypassed.append(reason)
    if len(bypassed) == 1:
        warn(
            f"a model call goes out unedited: {reason}. Further cases are in leyline.bypassed of "
            "what was wrapped and the log only"
        )
