"""A benchmark of one file: add two numbers up. For tests, and for seeing what a run leaves.

The agent is shown numbers it must read one by one, with much around them, and says their sum. What
`--model scripted` says solves most of it; which tasks it gets wrong depends on the seed.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from leyline_agent.message import Message
from leyline_agent.testing.model import Reply
from leyline_evals.solve.driver import Driver, Ended, Limits, Model, Outcome, Record, Task
from leyline_evals.solve.errors import EvalError, LimitReached

__all__ = ["Sums", "make", "sums"]

NOISE = "nothing to see in this line of output\n" * 30
INSTRUCTIONS = (
    "You add up numbers that stand in files. Say `read NAME` to see a file, one a turn. When you "
    "have seen all, say `answer N` with their sum. Say nothing else."
)


class Sums:
    """The benchmark.

    Args:
        num_tasks: how many tasks.
        files: numbers in each.
        wrong: the part of episodes that the scripted model gets wrong.
        delay: seconds each file takes to read.
        broken: tasks whose tool raises.
    """

    name = "sums"
    observations: Literal["user"] = "user"

    def __init__(
        self,
        num_tasks: int = 4,
        files: int = 3,
        wrong: float = 0.3,
        delay: float = 0.0,
        broken: Sequence[str] = (),
    ) -> None:
        self.options: dict[str, Any] = {
            "num_tasks": num_tasks,
            "files": files,
            "wrong": wrong,
            "delay": delay,
            "broken": list(broken),
        }

    def tasks(self, selection: Sequence[str]) -> Sequence[Task]:
        """The tasks that match, by number."""
        found = [self._task(number) for number in range(self.options["num_tasks"])]
        for pattern in selection:
            if not any(fnmatchcase(task.id, pattern) for task in found):
                raise EvalError(f"no task matches {pattern!r}; they are {found[0].id} and so on")
        if not selection:
            return found
        return [t for t in found if any(fnmatchcase(t.id, pattern) for pattern in selection)]

    def versions(self) -> dict[str, str]:
        """Nothing but ourselves."""
        return {"sums": "1"}

    def script(self, task: Task, seed: int) -> Sequence[Reply]:
        """Reads every file, and says the sum, or one more where it is wrong."""
        numbers = task.payload["numbers"]
        is_wrong = random.Random(f"{task.id} {seed}").random() < self.options["wrong"]
        return [*(f"read {name}" for name in numbers), f"answer {sum(numbers.values()) + is_wrong}"]

    def run(
        self, task: Task, seed: int, model: Model, limits: Limits, folder: Path, record: Record
    ) -> Outcome:
        """Ask until there is an answer."""
        messages: list[Message] = [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": f"The files are {', '.join(task.payload['numbers'])}."},
        ]
        try:
            return self._asked(task, model, messages, record)
        except LimitReached as error:
            ended = Ended.TIMEOUT if error.limit == "seconds" else Ended.LIMIT
            return Outcome(ended=ended, detail=str(error))

    def _asked(self, task: Task, model: Model, messages: list[Message], record: Record) -> Outcome:
        numbers: dict[str, int] = task.payload["numbers"]
        while True:
            reply = model(messages)
            said = re.fullmatch(r"\s*(read|answer) (\S+)\s*", str(reply.get("content") or ""))
            action, what = said.groups() if said else ("malformed", "")
            started = time.perf_counter()
            if action == "answer":
                record(model.step("answer"))
                right = what == str(sum(numbers.values()))
                ended = Ended.RESOLVED if right else Ended.UNRESOLVED
                return Outcome(ended=ended, patch=f"+{what}\n")
            output = self._read(task, what) if action == "read" else f"malformed; {INSTRUCTIONS}"
            reads = (what,) if what in numbers else ()
            record(model.step(action, time.perf_counter() - started, reads))
            messages += [reply, {"role": "user", "content": output}]

    def _read(self, task: Task, name: str) -> str:
        if task.id in self.options["broken"]:
            raise OSError(f"the disk of {task.id} is broken")
        time.sleep(self.options["delay"])
        found = task.payload["numbers"].get(name)
        return f"{NOISE}no such file\n" if found is None else f"{NOISE}{name}: {found}\n"

    def _task(self, number: int) -> Task:
        draw = random.Random(number)
        numbers = {f"{chr(97 + i)}.txt": draw.randint(1, 99) for i in range(self.options["files"])}
        return Task(id=f"sum-{number}", benchmark=self.name, payload={"numbers": numbers})


def make(**options: Any) -> Sums:
    """The driver of these options."""
    return Sums(**options)


def sums(
    num_tasks: Annotated[int, typer.Option("--num-tasks", min=1, help="How many tasks.")] = 4,
    files: Annotated[int, typer.Option("--files", min=1, help="Numbers in each.")] = 3,
    wrong: Annotated[
        float, typer.Option("--wrong", help="The part that `--model scripted` gets wrong.")
    ] = 0.3,
    delay: Annotated[float, typer.Option("--delay", help="Seconds each file takes.")] = 0.0,
    broken: Annotated[list[str] | None, typer.Option("--broken", help="Tasks that raise.")] = None,
) -> Driver:
    """A toy: numbers in files are read and added up. To see what a run is, without a sandbox.

    Example: `leyline eval sums --model scripted --policy truncate_older_than:n=1 --out runs/toy`
    """
    return Sums(num_tasks, files, wrong, delay, broken or ())
