"""What an agent changed, as a patch and as the repository that is graded; and what came of it."""

from __future__ import annotations

import ast
import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from leyline_evals.solve.errors import EvalError
from leyline_evals.tasks import Problem
from leyline_evals.tasks.problem import PYTEST

__all__ = ["Changes", "arguments", "judged", "left_out", "mended", "patch"]

Changes = Mapping[str, str | None]
"""New texts by path; None for what is gone."""

# What decides how tests run, or stands in the place of what runs them.
DECIDING = {"conftest.py", "pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml", ".pytest.ini"}
DECIDING |= {"sitecustomize.py", "usercustomize.py", "pytest.py", "_pytest", "pluggy"}


def left_out(problem: Problem, changes: Changes) -> list[str]:
    """Changed paths that grading puts back: read-only ones, and what decides how tests run."""
    return [path for path in sorted(changes) if not _counts(problem, path)]


def mended(problem: Problem, changes: Changes) -> dict[str, str]:
    """The repository with the changes and the hidden tests."""
    files = dict(problem.files)
    for path, text in changes.items():
        if not _counts(problem, path):
            continue
        if text is None:
            files.pop(path, None)
        else:
            files[path] = text
    return {**files, **problem.hidden}


def patch(problem: Problem, changes: Changes) -> str:
    """The changes as a unified diff."""
    return "".join(
        line
        for path in sorted(changes)
        for line in _diff(problem.files.get(path), changes[path], path)
    )


def arguments(problem: Problem) -> list[str]:
    """Those of pytest in the command that decides.

    Raises:
        EvalError: it is another command.
    """
    given, begin = shlex.split(problem.grade), shlex.split(PYTEST)
    if given[: len(begin)] != begin:
        raise EvalError(f"{problem.id}: {problem.grade!r} cannot decide, only {PYTEST!r} can")
    return given[3:]  # Behind `python -m pytest`.


def judged(problem: Problem, status: int, verdict: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Whether the tests that decide passed, and in a few words how that went.

    Args:
        problem: what they are of. All its tests must have passed: the number it tells, or each that
            its files name; of those a file may skip what it says that it skips.
        status: of pytest.
        verdict: node ids that `passed`, were `skipped`, or `failed`; None when there is none.
    """
    if verdict is None:
        return False, f"the tests that decide ended without a verdict (exit status {status})"
    passed: list[str] = verdict["passed"]
    told = f"{len(passed)}{f' of {problem.tests}' if problem.tests else ''} tests passed"
    ended_well = status == verdict["status"] == 0 and not verdict["failed"]
    if problem.tests:
        return ended_well and len(passed) == problem.tests, told
    named = dict(_named(problem))
    ran = {_function(test) for test in passed}
    skipped = {_function(test) for test in verdict["skipped"]}
    whole = (ran - skipped) | {test for test in ran | skipped if named.get(test)}
    missing = [test for test in named if test not in whole]
    if missing:
        told += f", but not {', '.join(missing[:3])}"
    return ended_well and bool(named) and bool(ran) and not missing, told


def _function(test: str) -> str:
    """A node id without the values of its parameters."""
    return test.partition("[")[0]


def _named(problem: Problem) -> Iterator[tuple[str, bool]]:
    """Node ids of the tests in the files that decide, and whether each tells of skipping."""
    files = {**problem.files, **problem.hidden}
    for path in arguments(problem):
        for node in ast.parse(files[path]).body if path in files else ():
            if isinstance(node, ast.ClassDef) and _holds_tests(node):
                marked = any("skip" in ast.unparse(mark) for mark in node.decorator_list)
                for name, skips in _functions(node.body):
                    yield f"{path}::{node.name}::{name}", marked or skips
            yield from ((f"{path}::{name}", skips) for name, skips in _functions([node]))


def _holds_tests(node: ast.ClassDef) -> bool:
    return node.name.startswith("Test") or any(
        ast.unparse(base).endswith("TestCase") for base in node.bases
    )


def _functions(body: Sequence[ast.stmt]) -> Iterator[tuple[str, bool]]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node.name, "skip" in ast.unparse(node)


def _diff(before: str | None, after: str | None, path: str) -> Iterator[str]:
    names = (
        "/dev/null" if before is None else f"a/{path}",
        "/dev/null" if after is None else f"b/{path}",
    )
    texts = ((before or "").splitlines(keepends=True), (after or "").splitlines(keepends=True))
    for line in difflib.unified_diff(*texts, *names):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _counts(problem: Problem, path: str) -> bool:
    """Whether a change is kept: allowed, and not in the place of a folder that grading fills."""
    put = [*problem.hidden, *(one for one in problem.files if not _may_change(problem, one))]
    in_place = any(one.startswith(f"{path}/") or path.startswith(f"{one}/") for one in put)
    return _may_change(problem, path) and not in_place


def _may_change(problem: Problem, path: str) -> bool:
    pure = PurePosixPath(path)
    if pure.is_absolute() or {"..", ".git"} & set(pure.parts) or DECIDING & set(pure.parts):
        return False
    return not any(_matches(path, pattern) for pattern in problem.readonly)


def _matches(path: str, pattern: str) -> bool:
    """As in .gitignore, as far as problems use it: a folder, or a name."""
    if pattern.endswith("/"):
        return path.startswith(pattern)
    return fnmatchcase(path, pattern)
