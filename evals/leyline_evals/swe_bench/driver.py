"""The driver of `leyline eval swe-bench`: instances as tasks, episodes, and grades."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from leyline_agent.testing.model import Reply
from leyline_agent.trajectory import Observations
from leyline_evals.solve.driver import Ended, Limits, Model, Outcome, Record, Task
from leyline_evals.solve.errors import EvalError, LimitReached
from leyline_evals.solve.folder import RunFolder
from leyline_evals.swe_bench import environment, script
from leyline_evals.swe_bench.bench import Bench, Grade, Solved
from leyline_evals.swe_bench.channel import ChildFailed
from leyline_evals.swe_bench.instances import Instance, load, select
from leyline_evals.swe_bench.places import Place
from leyline_evals.swe_bench.talk import Talk, speech

__all__ = ["MODEL", "SweBench", "make"]

MODEL = "leyline"  # What predictions of episodes name as their model.


def make(**options: Any) -> SweBench:
    """The driver that `options` describe, as `SweBench.options` has them.

    Raises:
        EvalError: the environment is not set up.
    """
    return SweBench(**options)


class SweBench:
    """A `solve.driver.Driver`.

    Args:
        dataset: "shipped", a file, or a name that swebench knows.
        split: of the dataset.
        talk: how the model speaks.
        sandbox: where commands run.
        repos: a folder of clones; "" for none.
        test_seconds: the most an instance's tests may take.
        predictions: grade these and ask no model: "gold", "empty", or a file; "" for episodes.
    """

    name = "swe-bench"

    def __init__(
        self,
        dataset: str = "shipped",
        split: str = "test",
        talk: str = "tools",
        sandbox: str = "auto",
        repos: str = "",
        test_seconds: float = 600.0,
        predictions: str = "",
    ) -> None:
        self.options: dict[str, Any] = {
            "dataset": dataset,
            "split": split,
            "talk": talk,
            "sandbox": sandbox,
            "repos": repos,
            "test_seconds": test_seconds,
            "predictions": predictions,
        }
        self.predictions = predictions
        self._speech = speech(cast(Talk, talk))
        clones = Path(repos) if repos else None
        place = cast(Place, sandbox)
        self.bench = Bench(environment.python(), place, clones, test_seconds)
        self._lock = threading.Lock()
        self._loaded: list[Instance] | None = None

    @property
    def observations(self) -> Observations:
        """How a session reads the conversations."""
        return self._speech.observations

    def instances(self, selection: Sequence[str]) -> list[Instance]:
        """The instances whose ids match; each can be run here.

        Raises:
            EvalError: the dataset is not there or not in the format, nothing matches, or one
                cannot be run here.
        """
        chosen = select(self._all(), selection)
        self.bench.check(chosen)
        return chosen

    def known(self) -> set[str]:
        """The ids of all instances of the dataset."""
        return {one.instance_id for one in self._all()}

    def tasks(self, selection: Sequence[str]) -> list[Task]:
        """The instances as tasks; their group is the repository."""
        return [
            Task(id=one.instance_id, benchmark=self.name, group=one.repo, payload=one.row())
            for one in self.instances(selection)
        ]

    def versions(self) -> dict[str, str]:
        """Of mini-swe-agent, swebench, and what boxes commands in."""
        return self.bench.versions()

    def script(self, task: Task, seed: int) -> list[Reply]:
        """Replies that look about, apply the gold patch and submit: they test the way, no model."""
        return script.gold(Instance.model_validate(task.payload), self._speech)

    def run(
        self,
        task: Task,
        seed: int,
        model: Model,
        limits: Limits,
        folder: Path,
        record: Record,
    ) -> Outcome:
        """One episode, graded; see `solve.driver.Driver.run`.

        The folder keeps mini-swe-agent's `trajectory.json`, swebench's `prediction.json`, and the
        logs of the grading.
        """
        instance = Instance.model_validate(task.payload)
        try:
            solved = self.bench.solve(instance, self._speech, model, limits, folder, record)
        except ChildFailed as error:
            if error.kind != "DiskFull":
                raise
            return Outcome(ended=Ended.LIMIT, detail=str(error))
        prediction = {
            "instance_id": instance.instance_id,
            "model_name_or_path": MODEL,
            "model_patch": solved.patch,
        }
        (folder / "prediction.json").write_text(json.dumps(prediction, indent=1) + "\n")
        if solved.patch.strip():
            grade = self.bench.grade(instance, prediction, folder)
        else:
            grade = Grade(False, "the patch is empty")
        return _outcome(grade, solved)

    def grade(
        self, selection: Sequence[str], out: Path | None, workers: int, json: bool = False
    ) -> int:
        """Grade `predictions` into a folder, and tell; the exit status. No model is asked."""
        from leyline_evals.swe_bench.predictions import grade, tell

        if out is None:
            raise EvalError("--out is missing: the folder for preds.json, logs and the report")
        try:
            graded = grade(self, selection, out, workers)
        finally:
            self.close()
        tell(graded, json)
        return int(graded.not_graded > 0)

    def finish(self, run: RunFolder) -> None:
        """Put the episodes' predictions together: `predictions/ARM/SEED/preds.json`."""
        from leyline_evals.swe_bench.predictions import collect

        collect(run)
        self.bench.close()

    def _all(self) -> list[Instance]:
        with self._lock:
            if self._loaded is None:
                name, split = self.options["dataset"], self.options["split"]
                self._loaded = load(name, split, self.bench.rows)
            return self._loaded

    def close(self) -> None:
        """End what waits for more episodes."""
        self.bench.close()


def _outcome(grade: Grade, solved: Solved) -> Outcome:
    limit = solved.limit
    if grade.is_broken:
        raise EvalError(grade.detail)
    if grade.resolved:
        ended = Ended.RESOLVED
    elif limit is None:
        ended = Ended.UNRESOLVED
    else:
        ended = Ended.TIMEOUT if _is_timeout(limit) else Ended.LIMIT
    told = [str(limit)] if limit is not None else []
    return Outcome(
        ended=ended, detail="; ".join([*told, grade.detail]).strip("; "), patch=solved.patch
    )


def _is_timeout(limit: LimitReached) -> bool:
    return limit.limit == "seconds"
