"""One episode: debug-gym asks from its sandbox, the model answers, another sandbox grades."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leyline_evals.debug_gym import grading, talk
from leyline_evals.debug_gym.boxes import Box, opened
from leyline_evals.debug_gym.grading import Changes
from leyline_evals.solve.child import ChildDied, ChildSilent
from leyline_evals.solve.driver import Ended, Limits, Model, Outcome, Record
from leyline_evals.solve.environments import Made
from leyline_evals.solve.errors import EvalError, LimitReached
from leyline_evals.tasks import Problem

if TYPE_CHECKING:
    from leyline_evals.debug_gym.driver import DebugGym

__all__ = ["Episode"]

STARTING = 120.0  # seconds: imports and the first evaluation, on a machine with much to do
GRADING = 60.0  # seconds that the tests that decide may take at least
CALLS = 6  # commands that one tool call may run, each as long as a step may take


class _Failed(EvalError):
    """The process told that something in it failed."""


@dataclass
class Episode:
    """An episode.

    Args:
        driver: the benchmark's options.
        made: debug-gym's environment.
        problem: to solve.
        model: answers.
        limits: `step_seconds` is held here.
        folder: the episode's own.
        record: writes a step down.
        now: the clock, in seconds.
    """

    driver: DebugGym
    made: Made
    problem: Problem
    model: Model
    limits: Limits
    folder: Path
    record: Record
    now: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        self._asked: talk.Asked | None = None
        self._action = ""  # The last reply's; "" before the first.
        self._sent = 0.0
        self._reached: LimitReached | None = None

    def run(self) -> Outcome:
        """Run and grade it.

        Raises:
            EvalError: something broke that says nothing about the model.
        """
        try:
            with self._open() as box:
                changes, unread = self._worked(box)
        except (ChildDied, ChildSilent, _Failed) as error:
            if not self._action:
                raise
            return self._ruined(error)
        return self._graded(changes, unread)

    def _worked(self, box: Box) -> tuple[Changes, list[str]]:
        """What the agent changed, and what of it was not read, in words."""
        box.send(self._task(box.folder))
        message = self._heard(box, STARTING + 2 * self.limits.step_seconds)
        while "ask" in message:
            try:
                answer = self._answer(message["ask"])
            except LimitReached as error:
                self._reached = error
                answer = {"stop": True}
            box.send(answer)
            message = self._heard(box, STARTING + CALLS * self.limits.step_seconds)
        return message["done"]["changes"], message["done"]["left"]

    def _answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        """The model's reply to a prompt, and the call in it."""
        tools = ask["tools"] if self.driver.protocol == "tools" else None
        reply = self.model(ask["messages"], tools)
        self._asked = asked = talk.asked(reply, self.driver.protocol)
        self._action = asked.action
        self._sent = self.now()
        return {"reply": reply, "call": asked.call, "problem": asked.problem}

    def _heard(self, box: Box, seconds: float) -> dict[str, Any]:
        """The next message; the step it ends is written down."""
        message = box.receive(seconds)
        if "failed" in message:
            raise _Failed(f"debug-gym failed: {message['failed']}")
        did = (message.get("ask") or message.get("done") or {}).get("did")
        self._recorded((did or {}).get("seconds", 0.0))
        return message

    def _recorded(self, seconds: float) -> None:
        """Write down the step that has been carried out, if there is one."""
        if (asked := self._asked) is not None:
            self._asked = None
            self.record(self.model.step(asked.action, seconds, asked.reads, asked.writes))

    def _ruined(self, error: EvalError) -> Outcome:
        """No repository came of it. The agent's doing can be the cause, so it counts."""
        when = "after" if self._asked is None else "while"
        detail = f"{when} {self._action} was carried out {error}"
        self._recorded(self.now() - self._sent)
        return self._outcome(False, detail)

    def _outcome(self, solved: bool, detail: str, made: str = "") -> Outcome:
        """How it ended: with a limit only where it is not solved."""
        ended = Ended.RESOLVED if solved else Ended.UNRESOLVED
        if (reached := self._reached) is not None and not solved:
            ended = Ended.TIMEOUT if reached.limit == "seconds" else Ended.LIMIT
            detail = f"{reached}; {detail}"
        return Outcome(ended=ended, detail=detail, patch=made)

    def _graded(self, changes: Changes, unread: list[str]) -> Outcome:
        """Run the tests that decide on what the agent changed."""
        made = grading.patch(self.problem, changes)
        (self.folder / "patch.diff").write_text(made, "utf-8")
        solved, why = self._passes(grading.mended(self.problem, changes))
        if left := [*grading.left_out(self.problem, changes), *unread]:
            why = f"{why}; not counted: {', '.join(left)}"
        return self._outcome(solved, why, made)

    def _passes(self, files: dict[str, str]) -> tuple[bool, str]:
        """Whether a repository passes, and in a few words what the tests said."""
        seconds = max(GRADING, self.limits.step_seconds)
        words = grading.arguments(self.problem)
        with self._open() as box:
            grade = {"do": "grade", "arguments": words, "seconds": seconds}
            box.send({**grade, "files": files, "folder": box.folder})
            message = box.receive(STARTING)
            if "began" in message:  # From here on what the agent wrote runs.
                try:
                    message = box.receive(seconds + STARTING)
                except (ChildDied, ChildSilent) as error:
                    return False, f"the tests that decide: {error}"
        if "failed" in message:
            raise EvalError(f"grading failed: {message['failed']}")
        told = message["graded"]
        (self.folder / "grading.txt").write_text(told["output"], "utf-8")
        if told["status"] is None:
            return False, f"the tests that decide were not over in {seconds:g} s"
        return grading.judged(self.problem, told["status"], told["verdict"])

    def _open(self) -> Any:
        return opened(self.made, self.driver.box, self.driver.bounds)

    def _task(self, folder: str) -> dict[str, Any]:
        """What the process is told; no hidden test, no gold."""
        problem = self.problem
        return {
            "do": "episode",
            "name": problem.id,
            "folder": folder,
            "files": dict(problem.files),
            "readonly": list(problem.readonly),
            "instructions": problem.instructions,
            "evaluate": problem.evaluate,
            "debug": problem.debug,
            "tools": list(talk.TOOLS),
            "system": talk.system(self.driver.protocol),
            "last": talk.last(self.driver.protocol),
            "plain": self.driver.protocol == "text",
            "seconds": self.limits.step_seconds,
            "chars": self.driver.chars,
        }
