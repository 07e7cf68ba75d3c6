"""What an agent changed, as a patch, and as the repository that is graded."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from leyline_evals.tasks import Problem

__all__ = ["Changes", "left_out", "mended", "patch"]

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


def _diff(before: str | None, after: str | None, path: str) -> Iterator[str]:
    names = (
        "/dev/null" if before is None else f"a/{path}",
        "/dev/null" if after is None else f"b/{path}",
    )
    texts = ((before or "").splitlines(keepends=True), (after or "").splitlines(keepends=True))
    for line in difflib.unified_diff(*texts, *names):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _counts(problem: Problem, path: str) -> bool:
    pure = PurePosixPath(path)
    if pure.is_absolute() or {"..", ".git"} & set(pure.parts) or DECIDING & set(pure.parts):
        return False
    return not any(_matches(path, pattern) for pattern in problem.readonly)


def _matches(path: str, pattern: str) -> bool:
    """As in .gitignore, as far as problems use it: a folder, or a name."""
    if pattern.endswith("/"):
        return path.startswith(pattern)
    return fnmatchcase(path, pattern)
