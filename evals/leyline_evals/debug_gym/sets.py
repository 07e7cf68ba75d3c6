"""The sets of problems: our own, and those of others that need no image and no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from leyline_evals.solve.errors import EvalError
from leyline_evals.tasks import Problem, generate
from leyline_evals.tasks.problem import PDB, PYTEST

__all__ = ["SETS", "SetName", "exercism", "generated", "mini_nightmare", "quixbugs"]

SetName = Literal["generated", "mini_nightmare", "exercism", "quixbugs"]
SETS: tuple[SetName, ...] = ("generated", "mini_nightmare", "exercism", "quixbugs")

# Those whose data the package has not: a text that is not in it, a table from the network.
INCOMPLETE = {"patcher", "pandas_dataframe"}
NIGHTMARE = (
    "The program doesn't behave as intended. Investigate the repository, figure out the root "
    "cause, then edit the code to fix the issue. Beware that the bug may not be in the code you "
    "initially see."
)


def generated(seeds: Sequence[int], difficulties: Sequence[int]) -> Iterator[Problem]:
    """Ours, by difficulty and seed."""
    for difficulty in difficulties:
        for seed in seeds:
            yield generate(seed, difficulty)


def mini_nightmare(packages: Path) -> Iterator[Problem]:
    """debug-gym's own, out of the installed package: eight of ten are whole there. MIT.

    Args:
        packages: the site-packages that hold it.
    """
    for folder in _folders(packages / "data" / "mini_nightmare", "debug-gym's mini_nightmare"):
        if folder.name not in INCOMPLETE:
            yield Problem(
                id=folder.name,
                group="mini_nightmare",
                instructions=NIGHTMARE,
                files={path.name: _text(path) for path in sorted(folder.glob("*.py"))},
                readonly=("test.py",),
                evaluate=f"{PYTEST} --tb=no -s test.py",
                debug=f"{PDB} test.py",
                hidden={},
                grade=f"{PYTEST} -q test.py",
            )


def exercism(root: Path) -> Iterator[Problem]:
    """Exercises of a checkout of github.com/exercism/python, what debug-gym calls aider. MIT.

    Those with one file to write; the example's text is the gold.
    """
    for folder in _folders(root / "exercises" / "practice", "a checkout of exercism/python"):
        about = json.loads(_text(folder / ".meta" / "config.json"))["files"]
        solution, tests = about["solution"], about["test"]
        if len(solution) != 1 or len(about.get("example", ())) != 1:
            continue
        given = [*solution, *tests, *about.get("editor", ())]
        docs = ("introduction", "instructions", "instructions.append")
        texts = [folder / ".docs" / f"{name}.md" for name in docs]
        yield Problem(
            id=folder.name,
            group="exercism",
            instructions="\n\n".join(_text(path).strip() for path in texts if path.exists()),
            files={name: _text(folder / name) for name in given},
            readonly=tuple(name for name in given if name not in solution),
            evaluate=f"{PYTEST} --tb=short {' '.join(tests)}",
            debug=f"{PDB} {' '.join(tests)}",
            hidden={},
            grade=f"{PYTEST} -q {' '.join(tests)}",
            gold={solution[0]: _text(folder / about["example"][0])},
        )


def quixbugs(root: Path) -> Iterator[Problem]:
    """Python programs of a checkout of github.com/jkoppel/QuixBugs, one wrong line each. MIT."""
    tests = root / "python_testcases"
    found = sorted(tests.glob("test_*.py"))
    if not found:
        raise EvalError(f"--path {root} is no checkout of jkoppel/QuixBugs: no python_testcases")
    for test in found:
        name = test.stem.removeprefix("test_")
        program = f"python_programs/{name}.py"
        shared = ["conftest.py", "python_testcases/node.py", "python_testcases/load_testdata.py"]
        wanted = [program, f"python_testcases/{test.name}", f"json_testcases/{name}.json", *shared]
        command = f"python_testcases/{test.name}"
        yield Problem(
            id=name,
            group="quixbugs",
            instructions=f"One line of {program} is wrong. Find it and mend it.",
            files={path: _text(root / path) for path in wanted if (root / path).exists()},
            readonly=("conftest.py", "python_testcases/", "json_testcases/"),
            evaluate=f"{PYTEST} --tb=short {command}",
            debug=f"{PDB} {command}",
            hidden={},
            grade=f"{PYTEST} -q {command}",
            gold={program: _text(root / "correct_python_programs" / f"{name}.py")},
        )


def _folders(root: Path, what: str) -> list[Path]:
    found = sorted(path for path in root.glob("*") if path.is_dir()) if root.is_dir() else []
    if not found:
        raise EvalError(f"{root} is not there, or empty: {what} is looked for in it")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvalError(f"{path} cannot be read: {error}") from error
