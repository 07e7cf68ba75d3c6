"""The programs that bugs are planted in, and a way to run their tests without leaving the process.

A program is a folder in templates/: a package, its tests, and hidden tests, one file a module. It
imports nothing but itself; its loops run over what does not grow. So a program with a bug may be
run here: it ends.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["Program", "failures", "programs"]

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Program:
    """A program of ours, without bugs.

    Attributes:
        name: of the package.
        modules: text of each module but `__init__`, by name, those first that import no others.
        leaves: names of those modules.
        init: text of the package's `__init__`.
        tests, hidden: text of the tests, by the module they test.
    """

    name: str
    modules: Mapping[str, str]
    leaves: tuple[str, ...]
    init: str
    tests: Mapping[str, str]
    hidden: Mapping[str, str]


@cache
def programs() -> tuple[Program, ...]:
    """All programs, by name."""
    return tuple(map(_load, sorted(path for path in TEMPLATES.iterdir() if path.is_dir())))


def _load(folder: Path) -> Program:
    name = folder.name
    texts = {path.stem: path.read_text("utf-8") for path in sorted((folder / name).glob("*.py"))}
    init = texts.pop("__init__")
    leaves = tuple(module for module, text in texts.items() if not _imported(name, text))
    ordered = sorted(texts, key=lambda module: (module not in leaves, module))
    return Program(
        name=name,
        modules={module: texts[module] for module in ordered},
        leaves=leaves,
        init=init,
        tests=_tests(folder / "tests", "test_"),
        hidden=_tests(folder / "hidden", "test_hidden_"),
    )


def _tests(folder: Path, prefix: str) -> dict[str, str]:
    return {
        path.stem.removeprefix(prefix): path.read_text("utf-8")
        for path in sorted(folder.glob(f"{prefix}*.py"))
    }


def _imported(package: str, text: str) -> set[str]:
    """The package's modules that a module imports, the trace left out."""
    froms = (node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom))
    names = {name.partition(".") for name in froms if name}
    return {module for top, _, module in names if top == package and module != "trail"}


def failures(files: Mapping[str, str], tests: Iterable[str]) -> set[str]:
    """The tests that fail, as "path::name"; a file that cannot be imported fails as a whole.

    Args:
        files: a repository's Python files.
        tests: paths of test files in it.
    """
    found = set()
    modules = _Modules(files)
    for path in tests:
        try:
            space = modules.load(path)
        except Exception:
            found.add(path)
            continue
        for name, test in _functions(space):
            try:
                test()
            except Exception:
                found.add(f"{path}::{name}")
    return found


def _unseen(*said: Any) -> None:
    """What a program prints while its bugs are chosen."""


def _functions(space: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in list(space.items()):
        if name.startswith("test_") and callable(value):
            yield name, value


class _Modules:
    """Modules made from texts; what they import is looked for among them first."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._loaded: dict[str, dict[str, Any]] = {}

    def load(self, path: str) -> dict[str, Any]:
        """The names of a module, which is run the first time."""
        if path not in self._loaded:
            space: dict[str, Any] = {
                "__name__": path.removesuffix(".py").replace("/", "."),
                "__builtins__": {**vars(builtins), "__import__": self._import, "print": _unseen},
            }
            self._loaded[path] = space
            exec(compile(self._files[path], path, "exec"), space)  # Texts of ours.
        return self._loaded[path]

    def _import(self, name: str, *rest: Any) -> Any:
        path = name.replace(".", "/") + ".py"
        if path in self._files:
            return SimpleNamespace(**self.load(path))
        return builtins.__import__(name, *rest)
