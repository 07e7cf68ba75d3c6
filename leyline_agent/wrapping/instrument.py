"""Instrumentation: entry points of libraries, patched once, on the first scope of the process.

* litellm: `completion`, `acompletion`, also where they were imported by name before;
* openai: `chat.completions.create`, of sync and async clients;
* anthropic: `messages.create`, `stream` and `parse`, of sync and async clients, by an entry point;
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from leyline_agent.wrapping.intercept import intercepted, intercepted_async
from leyline_agent.wrapping.libraries import LITELLM, OPENAI, OPENAI_PARSED
from leyline_agent.wrapping.scope import carried, is_scoped

__all__ = ["install"]

logger = logging.getLogger("leyline.wrap")

GROUP = "leyline.libraries"
"""Entry points of functions that patch a library's module."""

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


# Libraries


def _patch_litellm(module: ModuleType) -> None:
    for name, wrap in (("completion", intercepted), ("acompletion", intercepted_async)):
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
    kinds = (module.Completions, intercepted), (module.AsyncCompletions, intercepted_async)
    for kind, wrap in kinds:
        for name, library in (("create", OPENAI), ("parse", OPENAI_PARSED)):
            if hasattr(kind, name):
                setattr(kind, name, wrap(getattr(kind, name), library, method=True))


def _patch_found(name: str) -> Callable[[ModuleType], None]:
    """A patch that an adapter brings: the entry point of that name."""

    def patch(module: ModuleType) -> None:
        from importlib.metadata import entry_points  # Dear, and needed with this library only.

        for point in entry_points(group=GROUP, name=name):
            point.load()(module)

    return patch


_PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "litellm": _patch_litellm,
    "openai.resources.chat.completions.completions": _patch_openai,
    "anthropic.resources.messages.messages": _patch_found("anthropic"),
    "anthropic.resources.beta.messages.messages": _patch_found("anthropic"),
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
        if is_scoped():
            self.run = carried(self.run)
        start(self)

    @functools.wraps(submit)
    def scoped_submit(self: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, carried(function), *args, **kwargs)

    thread.start, pool.submit = scoped_start, scoped_submit
