"""Around a loop: the scope is there while the loop's own code runs, and only then."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from leyline_agent.warning import warn
from leyline_agent.wrapping.instrument import install
from leyline_agent.wrapping.scope import LoopScope, Scope, active, entered
from leyline_agent.wrapping.settings import Wrapped

__all__ = ["around_loop"]

logger = logging.getLogger("leyline.wrap")


def around_loop(function: Callable[..., Any], wrapped: Wrapped) -> Callable[..., Any]:
    """`function` with a scope, and so sessions, of its own for each call."""
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator = function(*args, **kwargs)
            with _running(wrapped) as scope:
                step = functools.partial(generator.asend, None)
                try:
                    while True:
                        try:
                            with entered(scope):
                                item = await step()
                        except StopAsyncIteration:
                            return
                        try:
                            step = functools.partial(generator.asend, (yield item))
                        except GeneratorExit:
                            raise
                        except BaseException as error:  # Thrown in: it is the loop's to handle.
                            step = functools.partial(generator.athrow, error)
                finally:
                    with entered(scope):
                        await generator.aclose()

        return stream_async

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with _running(wrapped) as scope:
                return (yield from _scoped(function(*args, **kwargs), scope))

        return stream

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with _running(wrapped) as scope, entered(scope):
                return await function(*args, **kwargs)

        return run_async

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _running(wrapped) as scope:
            with entered(scope):
                result = function(*args, **kwargs)
            if inspect.isawaitable(result):
                scope.reached = True  # Not run yet; whether it calls a model is not known here.
                return _awaited(result, scope)
            return result

    return run


@contextmanager
def _running(wrapped: Wrapped) -> Iterator[LoopScope]:
    """A loop's scope while it runs; says so, once, where a loop calls no model that we see."""
    install()
    around = active()
    if around is not None:
        around.reached = True
    scope = LoopScope(wrapped.adapter, wrapped.pool(), wrapped.bypassed)
    yield scope
    if not scope.reached and not wrapped.told:
        wrapped.told = True
        text = (
            f"{wrapped.name} made no model call through litellm or a client of OpenAI or "
            "Anthropic: nothing was edited. If it calls its model in another way, through a "
            "process pool, or through a client kept from before, wrap the function that makes the "
            "call instead"
        )
        logger.warning("%s", text)
        warn(text)


def _scoped(generator: Generator[Any, Any, Any], scope: Scope) -> Generator[Any, Any, Any]:
    """The generator as it is, `send` and `throw` included, each step inside `scope`."""
    step = functools.partial(generator.send, None)
    try:
        while True:
            try:
                with entered(scope):
                    item = step()
            except StopIteration as stop:
                return stop.value
            try:
                step = functools.partial(generator.send, (yield item))
            except GeneratorExit:
                raise
            except BaseException as error:  # Thrown in: it is the loop's to handle.
                step = functools.partial(generator.throw, error)
    finally:
        with entered(scope):
            generator.close()


async def _awaited(result: Awaitable[Any], scope: Scope) -> Any:
    with entered(scope):
        return await result
