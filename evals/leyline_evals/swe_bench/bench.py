"""Episodes and gradings, by children of the environment that has mini-swe-agent and swebench."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leyline_evals.solve.child import Child
from leyline_evals.solve.driver import Limits, Model, Record
from leyline_evals.solve.errors import EvalError, LimitReached
from leyline_evals.swe_bench.channel import Children, done, hear
from leyline_evals.swe_bench.checkouts import checkout
from leyline_evals.swe_bench.instances import Instance
from leyline_evals.swe_bench.places import Place, box, check_bubblewrap, docker_version
from leyline_evals.swe_bench.talk import Asked, Speech, instance_text

__all__ = ["Bench", "Grade", "Solved"]

_MARGIN_S = 60.0  # What a child may take beyond the time of what it runs.
_START_S = 180.0  # Imports on a cold, busy disk.
_LOAD_S = 1800.0


@dataclass(frozen=True)
class Solved:
    """What an episode left.

    Attributes:
        patch: the agent's, as a diff from the base commit.
        limit: the limit that ended it; None when the agent did.
    """

    patch: str
    limit: LimitReached | None = None


@dataclass(frozen=True)
class Grade:
    """What swebench says of a patch.

    Attributes:
        resolved: whether all tests pass that should.
        detail: what is not as it should be; "" when resolved.
        is_broken: it could not be graded, through no fault of the patch.
    """

    resolved: bool
    detail: str = ""
    is_broken: bool = False


class Bench:
    """The environment's children, and where what they run stands. Thread-safe.

    Args:
        python: the environment's interpreter.
        sandbox: "auto" takes Docker for instances that have an image, where it answers.
        repos: clones of repositories, for instances without Docker and without files.
        test_seconds: the most an instance's tests may take.
    """

    def __init__(
        self,
        python: Path,
        sandbox: Place = "auto",
        repos: Path | None = None,
        test_seconds: float = 600.0,
    ) -> None:
        command = [str(python), "-I", "-u", str(Path(__file__).with_name("child.py"))]
        self._children = Children(command, "the process of mini-swe-agent and swebench")
        self._sandbox = sandbox
        self._repos = repos
        self._test_seconds = test_seconds
        self._known: dict[str, Any] | None = None

    def close(self) -> None:
        """End the children that wait; more work starts others."""
        self._children.close()

    def versions(self) -> dict[str, str]:
        """The packages', and those of what boxes commands in."""
        with self._children.one() as child:
            found: dict[str, str] = dict(self._hello(child)["versions"])
        if docker := docker_version():
            found["docker"] = docker
        return found

    def rows(self, name: str, split: str) -> list[dict[str, Any]]:
        """A dataset that only swebench reads.

        Raises:
            EvalError: it is not there, or the hub is not.
        """
        try:
            with self._children.one() as child:
                rows: list[dict[str, Any]] = done(child, _LOAD_S, op="load", name=name, split=split)
        except EvalError as error:
            here = "cannot be read" if Path(name).exists() else "not here, and the hub gave none"
            raise EvalError(
                f"dataset {name}, split {split}: {here} ({str(error)[:300]}). Name a local .jsonl "
                "or .parquet in swebench 5's format, or leave --dataset out for those shipped"
            ) from error
        return rows

    def check(self, instances: Sequence[Instance]) -> None:
        """That each of them can be run here.

        Raises:
            EvalError: naming the first that cannot, and what to do.
        """
        for instance in instances:
            if not self._in_docker(instance):
                check_bubblewrap()
                break
        for instance in instances:
            if self._in_docker(instance):
                continue
            if instance.has_assets:
                raise EvalError(
                    f"{instance.instance_id} has image assets, which only swebench's own grading "
                    "in Docker puts in place; start Docker, or leave it out"
                )
            if not instance.files:
                with self._checked_out(instance):
                    pass

    def solve(
        self,
        instance: Instance,
        speech: Speech,
        model: Model,
        limits: Limits,
        folder: Path,
        record: Record,
    ) -> Solved:
        """One episode of mini-swe-agent's loop.

        Raises:
            EvalError: a process died, or the agent filled the disk (`ChildFailed.kind` DiskFull).
            EpisodeEnded: from the model; not `LimitReached`.
        """
        with self._children.one() as child, self._placed(child, instance) as place:
            order = dict(
                op="solve",
                task=instance_text(instance.problem_statement),
                system=speech.system(),
                base=instance.base_commit,
                folder=str(folder),
                image=instance.image,
                box=place,
                step_seconds=limits.step_seconds,
                seconds=_MARGIN_S,
            )
            child.send(order)
            episode = _Episode(child, instance, speech, model, limits, record)
            return episode.played()

    def grade(self, instance: Instance, prediction: dict[str, Any], folder: Path) -> Grade:
        """Run the instance's tests on a fresh checkout with a prediction's patch; logs in `folder`.

        Raises:
            EvalError: a process died, or the repository is not there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with self._children.one() as child, self._placed(child, instance) as place:
            graded = done(
                child,
                2 * self._test_seconds + _START_S,
                op="grade",
                instance=instance.row(),
                prediction=prediction,
                folder=str(folder),
                image=instance.image,
                box=place,
                step_seconds=self._test_seconds,
                seconds=self._test_seconds,
            )
        return _judged(prediction, graded)

    def report(
        self, instances: Sequence[Instance], predictions: dict[str, Any], folder: Path
    ) -> str:
        """Have swebench report what was graded in a folder; the report's file there."""
        rows = [instance.row() for instance in instances]
        with self._children.one() as child:
            made = done(
                child,
                _START_S,
                op="report",
                instances=rows,
                predictions=predictions,
                folder=str(folder),
            )
        return str(made["file"])

    def _hello(self, child: Child) -> dict[str, Any]:
        if self._known is None:
            self._known = done(child, _START_S, op="hello")
        return self._known

    def _in_docker(self, instance: Instance) -> bool:
        if self._sandbox == "bubblewrap" or (self._sandbox == "auto" and instance.files):
            return False
        if self._sandbox == "docker":
            if not docker_version():
                raise EvalError(
                    "no Docker daemon answers (docker version): start it, or use --sandbox "
                    "bubblewrap for instances with files or with --repos"
                )
            if instance.files:
                raise EvalError(
                    f"{instance.instance_id} has no image, but files: it needs no Docker"
                )
            return True
        return bool(docker_version())

    @contextmanager
    def _placed(self, child: Child, instance: Instance) -> Iterator[dict[str, Any] | None]:
        """A fresh place for an instance: a box, or None for a container of its image."""
        if self._in_docker(instance):
            yield None
            return
        with self._checked_out(instance) as folder:
            yield box(folder, self._hello(child)["folders"])

    @contextmanager
    def _checked_out(self, instance: Instance) -> Iterator[Path]:
        root = Path(tempfile.mkdtemp(prefix="leyline-swe-bench-"))
        try:
            folder = root / "testbed"
            checkout(instance, folder, self._repos)
            yield folder
        finally:
            shutil.rmtree(root, ignore_errors=True)


class _Episode:
    """The parent's side of an episode: a child that asks, a model that answers."""

    def __init__(
        self,
        child: Child,
        instance: Instance,
        speech: Speech,
        model: Model,
        limits: Limits,
        record: Record,
    ) -> None:
        self._child = child
        self._base = instance.base_commit
        self._speech = speech
        self._model = model
        self._limits = limits
        self._record = record
        self._asked: Asked | None = None
        self._reply: dict[str, Any] = {}
        self._began = 0.0

    def played(self) -> Solved:
        """Answer until the child is done; the step in which it fails is written down, too."""
        try:
            return self._answered()
        except EvalError:
            self._recorded(time.perf_counter() - self._began)
            raise

    def _answered(self) -> Solved:
        limit: LimitReached | None = None
        while True:
            commands = len(self._asked.commands) if self._asked else 0
            heard = hear(self._child, commands * self._limits.step_seconds + _START_S + _MARGIN_S)
            if "done" in heard:
                self._recorded(time.perf_counter() - self._began)
                return Solved(str(heard["done"]["patch"]), limit)
            if "did" in heard:
                self._recorded(float(heard["seconds"]))
                messages = self._speech.observed(self._reply, heard["did"])
                for message, output in zip(messages, heard["did"], strict=True):
                    message["extra"] = {"returncode": output.get("returncode")}
                self._child.send({"messages": messages})
                continue
            try:
                self._child.send(self._answer(heard["ask"]))
            except LimitReached as error:
                limit = error
                self._child.send({"stop": str(error)})

    def _answer(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        self._reply = dict(self._model(messages, self._speech.tools))
        self._asked = self._speech.asked(self._reply, self._base)
        self._began = time.perf_counter()
        if self._asked.refusal:
            refusal = list(self._asked.refusal)
            self._recorded(0.0)
            return {"message": self._reply, "refusal": refusal}
        actions = [{"command": command} for command in self._asked.commands]
        return {"message": self._reply, "actions": actions}

    def _recorded(self, seconds: float) -> None:
        """Write the last reply's step down, once."""
        asked, self._asked = self._asked, None
        if asked is not None:
            step = self._model.step(asked.action, seconds, asked.reads, asked.writes)
            self._record(step)


def _judged(prediction: dict[str, Any], graded: dict[str, Any]) -> Grade:
    report, detail = graded["report"], str(graded["detail"])
    if report is None:
        return Grade(False, detail)
    if report["resolved"]:
        return Grade(True)
    if not (prediction["model_patch"] or "").strip():
        return Grade(False, "the patch is empty")
    if report.get("infra_failure"):
        reason = report.get("infra_failure_reason", "unknown")
        return Grade(False, f"the environment failed: {reason}", is_broken=True)
    status = report.get("tests_status")
    if status is None:
        return Grade(False, "the tests' output could not be read")
    failed = [name for kind in status.values() for name in kind["failure"]]
    return Grade(False, f"{len(failed)} tests fail: {', '.join(failed[:3])}")
