"""Generated problems: a program of ours with bugs in it, by seed and difficulty.

| difficulty | repository | bugs | which tests fail | what `eval` prints |
| --- | --- | --- | --- | --- |
| 1 | one small module, shown with the task | an empty function | the module's own | little |
| 2 | four modules | 1 | the module's own, and others | traces of failed tests |
| 3 | the same | 1 | only those of modules that use the broken one | traces of all tests |
| 4 | the same | 2, in two files | the modules' own | traces of all tests |
| 5 | the same | 3, in three files | only those of modules that use them, where there are such | \
traces of all tests, over more data |

Every bug is noticed by a visible and by a hidden test, with the others mended. The hidden tests
decide. The same seed and difficulty always give the same problem.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from leyline_agent.errors import LeylineError
from leyline_evals.tasks.bugs import HARD, KINDS, MISSING, Bug, bugs
from leyline_evals.tasks.problem import PDB, PYTEST, Problem
from leyline_evals.tasks.programs import Program, failures, programs

__all__ = ["DIFFICULTIES", "generate"]

DIFFICULTIES = range(1, 6)


@dataclass(frozen=True)
class _Level:
    """What a difficulty stands for."""

    bugs: int
    kinds: tuple[str, ...]
    own_tests: bool
    traced: bool
    size: int
    options: str


_LEVELS = {
    1: _Level(1, (MISSING,), True, False, 4, "-q --tb=short"),
    2: _Level(1, KINDS, True, True, 4, "--tb=short"),
    3: _Level(1, KINDS, False, True, 8, "-v --tb=long -rA"),
    4: _Level(2, KINDS, True, True, 8, "-v --tb=long -rA"),
    5: _Level(3, KINDS, False, True, 12, "-v --tb=long -rA"),
}
_COUNT = {1: "one bug", 2: "two bugs, in two files", 3: "three bugs, in three files"}
_TRAIL = '''"""What the program does, step by step, for those who want to see it."""

TRACE = {traced}


def note(text):
    """Print a line of the trace."""
    if TRACE:
        print(text)
'''


def generate(seed: int, difficulty: int) -> Problem:
    """A problem.

    Args:
        seed: any whole number; it picks the program, the bugs and their places.
        difficulty: 1 (easy) to 5.

    Raises:
        LeylineError: there is no such difficulty.
    """
    if difficulty not in _LEVELS:
        raise LeylineError(f"difficulty {difficulty!r} is none: they go from 1 to 5")
    rng = random.Random(f"leyline {difficulty} {seed}")
    level = _LEVELS[difficulty]
    chosen = list(programs())
    rng.shuffle(chosen)
    for program in chosen:
        planted = _planted(program, difficulty, level, rng)
        if planted is not None:
            return planted.problem(f"d{difficulty}-{seed:04d}-{program.name}", f"d{difficulty}")
    raise LeylineError(f"no program has the bugs of difficulty {difficulty}")  # pragma: no cover


def _planted(
    program: Program, difficulty: int, level: _Level, rng: random.Random
) -> _Planting | None:
    """Bugs that tests notice, each by itself, in a file of its own."""
    modules = [rng.choice(program.leaves)] if difficulty == 1 else list(program.modules)
    planting = _Planting(program, difficulty, level, modules)
    candidates = [
        bug
        for module in modules
        for bug in bugs(f"{program.name}/{module}.py", program.modules[module])
        if bug.kind in level.kinds
    ]
    # A kind first, then a place: some kinds fit in few places.
    rng.shuffle(candidates)
    kinds = list(level.kinds)
    rng.shuffle(kinds)
    if difficulty == 5:
        kinds.sort(key=lambda kind: kind not in HARD)
    candidates.sort(key=lambda bug: kinds.index(bug.kind))
    for bug in candidates:
        taken = {planted.path for planted in planting.bugs} | {b.kind for b in planting.bugs}
        if bug.path not in taken and bug.kind not in taken and planting.accepts(bug):
            planting.bugs.append(bug)
            if len(planting.bugs) == level.bugs:
                return planting
    return None


class _Planting:
    """A program, and the bugs planted in it so far."""

    def __init__(
        self, program: Program, difficulty: int, level: _Level, modules: list[str]
    ) -> None:
        self.bugs: list[Bug] = []
        self._program = program
        self._difficulty = difficulty
        self._level = level
        self._modules = modules
        self._sound = {f"{program.name}/{name}.py": program.modules[name] for name in modules}
        self._hidden = {f"hidden/test_hidden_{name}.py": program.hidden[name] for name in modules}

    def accepts(self, bug: Bug) -> bool:
        """Whether visible and hidden tests notice each bug alone, this one among the others."""
        together = [*self.bugs, bug]
        visible = self._visible(together)
        for one in together:
            files = self._files([one], visible)
            if not failures(files, visible) or not failures(files, self._hidden):
                return False
        return True

    def problem(self, name: str, group: str) -> Problem:
        """The problem."""
        visible = self._visible(self.bugs)
        files = self._files(self.bugs, visible)
        failed = sorted(failures(files, visible))
        broken = sorted(bug.path for bug in self.bugs)
        for path in self._hidden:
            del files[path]
        return Problem(
            id=name,
            group=group,
            instructions=self._instructions(failed, broken),
            files=files,
            readonly=("tests/",),
            evaluate=f"{PYTEST} {self._level.options} tests",
            debug=f"{PDB} tests",
            hidden=self._hidden,
            grade=f"{PYTEST} -q hidden",
            tests=sum(map(_count, self._hidden.values())),
            gold={path: self._sound[path] for path in broken},
            kinds=tuple(sorted(bug.kind for bug in self.bugs)),
        )

    def _visible(self, planted: Iterable[Bug]) -> dict[str, str]:
        """Visible test files. The broken modules' own are left out where others may notice."""
        tests = self._program.tests
        own = {bug.path.rpartition("/")[2].removesuffix(".py") for bug in planted}
        kept = [
            name
            for name in self._modules
            if self._level.own_tests or name not in own or name not in self._program.leaves
        ]
        return {f"tests/test_{name}.py": tests[name] for name in kept}

    def _files(self, planted: Iterable[Bug], visible: Mapping[str, str]) -> dict[str, str]:
        package = self._program.name
        files = {
            f"{package}/__init__.py": self._program.init,
            f"{package}/trail.py": _TRAIL.format(traced=self._level.traced),
            **self._sound,
            "tests/__init__.py": "",
            "tests/scale.py": f"SIZE = {self._level.size}\n",
            **visible,
            **self._hidden,
        }
        for bug in planted:
            files[bug.path] = bug.plant(files[bug.path])
        return files

    def _instructions(self, failed: list[str], broken: list[str]) -> str:
        names = ", ".join(test.rpartition("::")[2] for test in failed[:3])
        if self._difficulty == 1:
            where = f"the function `{self.bugs[0].function}` of {broken[0]} is empty"
            fails = f"{failed[0].partition('::')[0]} fails ({names})"
            wrong = self._files(self.bugs, {})[broken[0]]
            return (
                f"In this repository {where}, and {fails}. Write it, so that it does what its "
                f"docstring says. Don't change the tests. This is "
                f"{broken[0]}:\n\n```python {broken[0]}\n{wrong}```"
            )
        return (
            f"The package `{self._program.name}` does not do what its docstrings say. It has "
            f"{_COUNT[len(broken)]}. Among the tests that fail are {names}. Find the cause and "
            "mend it in the package. Don't change the tests: others, which you cannot see, decide."
        )


def _count(text: str) -> int:
    """How many tests a file has."""
    return sum(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        for node in ast.parse(text).body
    )
