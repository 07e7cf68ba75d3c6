"""Instrumentation: entry points of libraries, patched once, on the first scope of the process.

* litellm: `completion`, `acompletion`, also where they were imported by name before;
* openai: `chat.completions.create`, of sync and async clients;
* threads: a scope follows into `threading.Thread` and `ThreadPoolExecutor`, which context
  variables alone do not.

A library that is not imported yet is patched when it is; we never import one. Outside all scopes a
patched entry point does what it did. Not covered: references hidden in closures, defaults or
containers before the first scope; process pools; thread pools with workers of their own.
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from leyline_agent.adapter import CallingAdapter
from leyline_agent.wrapping.held import held, held_async
from leyline_agent.wrapping.libraries import LITELLM, OPENAI, OPENAI_PARSED, Library, request_of
from leyline_agent.wrapping.scope import Exchange, active, entered, stepped, stepped_async
from leyline_agent.wrapping.streams import (
    Assembly,
    AsyncStream,
    Stream,
    as_it_is,
    tee,
    tee_async,
)

__all__ = ["install"]

logger = logging.getLogger("leyline.wrap")

_OPENAI_MODULE = "openai.resources.chat.completions.completions"

_lock = threading.Lock()
_installed = False


def install() -> None:
    """Patch what is imported, watch for what is not. Does its work once a process."""
    global _installed
    if _installed:
        return
    with _lock:
        if _installed:
            return
        _installed = True
        _patch_threads()
        for name, patch in _PATCHES.items():
            module = sys.modules.get(name)
            if module is not None:
                patch(module)
        sys.meta_path.insert(0, _Watcher())


# Calls


def _sync(original: Callable[..., Any], library: Library, *, method: bool) -> Callable[..., Any]:
    """`original` with its calls taken up by the active scope."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        scope = active()
        request = request_of(original, args[method:], kwargs) if scope else None
        if scope is None or request is None or kwargs.get("acompletion"):
            return original(*args, **kwargs)
        exchange = scope.exchange(request)
        with _failing(exchange), entered(None):
            if exchange.caller is not None:
                return _taken_over(exchange, exchange.caller, library)

            def make() -> Any:
                return original(*args[:method], **exchange.request)

            response = make()
            if request.get("stream"):
                if library.whole(request, response) is response:
                    return _streamed(response, make, exchange, library)
            else:
                while exchange.advance(library.whole(request, response)):
                    response = make()
        return _answered(exchange, response, library.whole(request, response))

    return call


def _async(original: Callable[..., Any], library: Library, *, method: bool) -> Callable[..., Any]:
    @functools.wraps(original)
    async def call(*args: Any, **kwargs: Any) -> Any:
        scope = active()
        request = request_of(original, args[method:], kwargs) if scope else None
        if scope is None or request is None:
            return await original(*args, **kwargs)
        exchange = scope.exchange(request)
        with _failing(exchange), entered(None):
            if exchange.caller is not None:
                return await _taken_over_async(exchange, exchange.caller, library)

            async def make() -> Any:
                return await original(*args[:method], **exchange.request)

            response = await make()
            if request.get("stream"):
                if library.whole(request, response) is response:
                    return _streamed_async(response, make, exchange, library)
            else:
                while exchange.advance(library.whole(request, response)):
                    response = await make()
        return _answered(exchange, response, library.whole(request, response))

    return call


def _answered(exchange: Exchange, response: Any, whole: Any) -> Any:
    """The response as the caller is to get it; what is in a raw one is changed in its place."""
    exchange.answered(whole)
    told = exchange.delivered(whole)
    return told if whole is response else response


def _streamed(
    first: Any,
    make: Callable[[], Any],
    exchange: Exchange,
    library: Library,
    convert: Callable[[Any], Any] = as_it_is,
) -> Stream:
    """The stream in place of a call's, which `make` makes again after a recall."""
    assembly = Assembly()
    if not exchange.may_advance:
        library.hear(first, assembly.note)
        chunks = stepped(iter(first), None)
        return Stream(first, tee(chunks, exchange, convert, assembly), exchange)
    cleaned = exchange.delivery()
    chunks = stepped(held(first, make, exchange, library.hear, assembly), None)
    whole = tee(chunks, exchange, lambda chunk: convert(cleaned(chunk)), assembly)
    return Stream(first, whole, exchange)


def _streamed_async(
    first: Any,
    make: Callable[[], Awaitable[Any]],
    exchange: Exchange,
    library: Library,
    convert: Callable[[Any], Any] = as_it_is,
) -> AsyncStream:
    """`_streamed` for asynchronous streams."""
    assembly = Assembly()
    if not exchange.may_advance:
        library.hear(first, assembly.note)
        chunks = stepped_async(aiter(first), None)
        return AsyncStream(first, tee_async(chunks, exchange, convert, assembly), exchange)
    cleaned = exchange.delivery()
    chunks = stepped_async(held_async(first, make, exchange, library.hear, assembly), None)
    whole = tee_async(chunks, exchange, lambda chunk: convert(cleaned(chunk)), assembly)
    return AsyncStream(first, whole, exchange)


@contextmanager
def _failing(exchange: Exchange) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        exchange.failed(error)
        raise


def _taken_over(exchange: Exchange, caller: CallingAdapter, library: Library) -> Any:
    library.check(exchange.request)
    if exchange.request.get("stream"):
        return _streamed(
            caller.stream(exchange.request),
            lambda: caller.stream(exchange.request),
            exchange,
            library,
            library.chunk,
        )
    body = caller.complete(exchange.request)
    while exchange.advance(body):
        body = caller.complete(exchange.request)
    return library.completion(_answered(exchange, body, body))


async def _taken_over_async(exchange: Exchange, caller: CallingAdapter, library: Library) -> Any:
    library.check(exchange.request)
    if exchange.request.get("stream"):

        async def make() -> Any:
            return caller.astream(exchange.request)

        return _streamed_async(await make(), make, exchange, library, library.chunk)
    body = await caller.acomplete(exchange.request)
    while exchange.advance(body):
        body = await caller.acomplete(exchange.request)
    return library.completion(_answered(exchange, body, body))


# Libraries


def _patch_litellm(module: ModuleType) -> None:
    for name, wrap in (("completion", _sync), ("acompletion", _async)):
        original = getattr(module, name)
        patched = wrap(original, LITELLM, method=False)
        setattr(module, name, patched)
        _rebind(original, patched)


def _rebind(original: Any, patched: Any) -> None:
    """Patch modules that imported the function by name; the library's own keep the original."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "litellm" or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if value is original:
                setattr(module, key, patched)


def _patch_openai(module: ModuleType) -> None:
    for kind, wrap in ((module.Completions, _sync), (module.AsyncCompletions, _async)):
        for name, library in (("create", OPENAI), ("parse", OPENAI_PARSED)):
            if hasattr(kind, name):
                setattr(kind, name, wrap(getattr(kind, name), library, method=True))


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "litellm": _patch_litellm,
    _OPENAI_MODULE: _patch_openai,
}


class _Watcher(MetaPathFinder):
    """Lets the other finders find a library to be patched, and patches it when it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PATCHES:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _PatchingLoader(spec.loader, _PATCHES[fullname])
                return spec
        return None


class _PatchingLoader(Loader):
    """A module's own loader, which a patch follows."""

    def __init__(self, loader: Loader, patch: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._patch = patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._patch(module)


# Threads


def _patch_threads() -> None:
    thread: Any = threading.Thread
    pool: Any = ThreadPoolExecutor
    start, submit = thread.start, pool.submit

    @functools.wraps(start)
    def scoped_start(self: Any) -> None:
        if active() is not None:
            self.run = _carried(self.run)
        start(self)

    @functools.wraps(submit)
    def scoped_submit(self: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, _carried(function), *args, **kwargs)

    thread.start, pool.submit = scoped_start, scoped_submit


def _carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` in the scope of whoever hands it to a thread: none, if there is none.

    A pool's worker may have been started in another scope.
    """
    scope = active()

    def run(*args: Any, **kwargs: Any) -> Any:
        with entered(scope):
            return function(*args, **kwargs)

    return run
