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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from leyline_agent.adapter import CallingAdapter
from leyline_agent.wrapping.libraries import LITELLM, OPENAI, OPENAI_PARSED, Library, request_of
from leyline_agent.wrapping.scope import Exchange, active, entered, stepped, stepped_async
from leyline_agent.wrapping.streams import Assembly, AsyncStream, Stream, tee, tee_async

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
            response = original(*args[:method], **exchange.request)
        if request.get("stream") and library.whole(request, response) is response:
            assembly = Assembly()
            library.hear(response, assembly.note)
            chunks = stepped(iter(response), None)
            return Stream(response, tee(chunks, exchange, assembly=assembly), exchange)
        exchange.answered(library.whole(request, response))
        return response

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
            response = await original(*args[:method], **exchange.request)
        if request.get("stream") and library.whole(request, response) is response:
            assembly = Assembly()
            library.hear(response, assembly.note)
            chunks = stepped_async(aiter(response), None)
            return AsyncStream(response, tee_async(chunks, exchange, assembly=assembly), exchange)
        exchange.answered(library.whole(request, response))
        return response

    return call


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
        chunks = caller.stream(exchange.request)
        return Stream(chunks, tee(stepped(iter(chunks), None), exchange, library.chunk), exchange)
    body = caller.complete(exchange.request)
    exchange.answered(body)
    return library.completion(body)


async def _taken_over_async(exchange: Exchange, caller: CallingAdapter, library: Library) -> Any:
    library.check(exchange.request)
    if exchange.request.get("stream"):
        chunks = caller.astream(exchange.request)
        whole = tee_async(stepped_async(aiter(chunks), None), exchange, library.chunk)
        return AsyncStream(chunks, whole, exchange)
    body = await caller.acomplete(exchange.request)
    exchange.answered(body)
    return library.completion(body)


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
