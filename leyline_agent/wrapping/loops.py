"""Around a loop: the scope is there while the loop's own code runs, and only then."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from leyline_agent.wrapping.instrument import install
from leyline_agent.wrapping.scope import LoopScope, Scope, entered
from leyline_agent.wrapping.settings import Wrapped

__all__ = ["around_loop"]


def around_loop(function: Callable[..., Any], wrapped: Wrapped) -> Callable[..., Any]:
    """`function` with a scope, and so sessions, of its own for each call."""

    def scope() -> LoopScope:
        install()
        return LoopScope(wrapped.adapter, wrapped.pool(), wrapped.bypassed)

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream_async(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator, around = function(*args, **kwargs), scope()
            step = functools.partial(generator.asend, None)
            try:
                while True:
                    try:
                        with entered(around):
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
                with entered(around):
                    await generator.aclose()

        return stream_async

    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _scoped(function(*args, **kwargs), scope()))

        return stream

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            return await _awaited(function(*args, **kwargs), scope())

        return run_async

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        around = scope()
        with entered(around):
            result = function(*args, **kwargs)
        return _awaited(result, around) if inspect.isawaitable(result) else result

    return run


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
