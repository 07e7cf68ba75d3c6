"""The driver of `leyline eval debug-gym`: tasks, episodes and their grading."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from leyline_agent.testing.model import Reply
from leyline_evals.debug_gym import sets, talk
from leyline_evals.debug_gym.episode import Episode
from leyline_evals.solve import sandbox
from leyline_evals.solve.driver import Limits, Model, Outcome, Record, Task
from leyline_evals.solve.environments import Made, find
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.sandbox import Bounds
from leyline_evals.tasks import Problem

__all__ = ["DebugGym", "make"]


class DebugGym:
    """The benchmark.

    Args:
        problems: which set, of `sets.SETS`.
        path: the checkout it is in, for sets that are not installed.
        difficulties, num_tasks, first: of generated problems, so many seeds of each difficulty.
        protocol: tool calls, or plain text.
        box: the sandbox.
        chars: the most characters of an output that the model sees.
        memory, disk: of the sandbox, in MiB.
        processes: of the sandbox.
    """

    name = "debug-gym"

    def __init__(
        self,
        problems: sets.SetName = "generated",
        path: str | None = None,
        difficulties: Sequence[int] = (1, 2, 3),
        num_tasks: int = 4,
        first: int = 0,
        protocol: talk.Protocol = "tools",
        box: sandbox.Kind = "bubblewrap",
        chars: int = 10_000,
        memory: int = 3072,
        disk: int = 512,
        processes: int = 128,
    ) -> None:
        self.options: dict[str, Any] = {
            "problems": problems,
            "path": path,
            "difficulties": list(difficulties),
            "num_tasks": num_tasks,
            "first": first,
            "protocol": protocol,
            "box": box,
            "chars": chars,
            "memory": memory,
            "disk": disk,
            "processes": processes,
        }
        self.protocol = protocol
        self.box = box
        self.chars = chars
        self.bounds = Bounds(memory << 20, disk << 20, processes)

    @property
    def observations(self) -> Literal["tool", "user"]:
        """Outputs answer calls, or are the user's."""
        return "tool" if self.protocol == "tools" else "user"

    def tasks(self, selection: Sequence[str]) -> Sequence[Task]:
        """The tasks that match, in the set's order."""
        names = list(self._problems)
        for pattern in selection:
            if not any(fnmatchcase(name, pattern) for name in names):
                told = ", ".join([*names[:20], *(["..."] if names[20:] else [])])
                raise EvalError(f"no task matches {pattern!r}; they are {told}")
        return [
            self._task(problem)
            for name, problem in self._problems.items()
            if not selection or any(fnmatchcase(name, pattern) for pattern in selection)
        ]

    def versions(self) -> dict[str, str]:
        """The environment's, and the sandbox.

        Raises:
            EvalError: one of them is not there; a run is not begun then.
        """
        sandbox.require(self.box)
        return {**self._made.versions, "sandbox": self.box}

    def script(self, task: Task, seed: int) -> Sequence[Reply]:
        """Looks, writes the gold down, evaluates and submits.

        Raises:
            EvalError: the set has no gold.
        """
        problem = self._problem(task)
        if not problem.gold:
            raise EvalError(
                f"--model scripted writes the gold down, and none is known of {task.id}: name a "
                "model, or another --set"
            )
        return talk.script(problem, self.protocol)

    def run(
        self, task: Task, seed: int, model: Model, limits: Limits, folder: Path, record: Record
    ) -> Outcome:
        """Run one episode in a sandbox of its own, and grade it in another."""
        problem = self._problem(task)
        sandbox.require(self.box)
        return Episode(self, self._made, problem, model, limits, folder, record).run()

    @cached_property
    def _made(self) -> Made:
        return find("debug-gym")

    @cached_property
    def _problems(self) -> dict[str, Problem]:
        return {problem.id: problem for problem in self._chosen()}

    def _chosen(self) -> Iterable[Problem]:
        chosen: sets.SetName = self.options["problems"]
        if chosen == "generated":
            first = self.options["first"]
            seeds = range(first, first + self.options["num_tasks"])
            return sets.generated(seeds, self.options["difficulties"])
        if chosen == "mini_nightmare":
            (packages,) = self._made.folder.glob("lib/python*/site-packages")
            return sets.mini_nightmare(packages)
        if self.options["path"] is None:
            raise EvalError(f"--set {chosen} needs --path: a checkout of {_CHECKOUTS[chosen]}")
        root = Path(self.options["path"])
        return sets.exercism(root) if chosen == "exercism" else sets.quixbugs(root)

    def _problem(self, task: Task) -> Problem:
        """The problem of a task, which must still be the one the run was planned with.

        Raises:
            EvalError: its files have changed since.
        """
        problem = self._problems.get(task.id)
        if problem is None or self._task(problem).payload != task.payload:
            raise EvalError(
                f"task {task.id} is no more what it was when this run was planned: its files, or "
                "the generator, have changed. Begin a new run"
            )
        return problem

    def _task(self, problem: Problem) -> Task:
        said = json.dumps(vars(problem), sort_keys=True)
        return Task(
            id=problem.id,
            benchmark=f"{self.name}/{self.options['problems']}",
            group=problem.group,
            payload={
                "sha256": hashlib.sha256(said.encode()).hexdigest(),
                "kinds": list(problem.kinds),
            },
        )


_CHECKOUTS = {
    "exercism": "https://github.com/exercism/python",
    "quixbugs": "https://github.com/jkoppel/QuixBugs",
}


def make(**options: Any) -> DebugGym:
    """The driver of these options."""
    return DebugGym(**options)
