"""A sitting: the episodes that are left, in parallel, until all are done or the time is up."""

from __future__ import annotations

import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from leyline_agent.session import Session
from leyline_evals.solve.backend import SCRIPTED, Backend
from leyline_evals.solve.config import Cell, cells, digest_of
from leyline_evals.solve.driver import Driver, Ended, Outcome, StepRecord, Task
from leyline_evals.solve.episode import EpisodeModel
from leyline_evals.solve.errors import EvalError, Interrupted, LimitReached, ModelFailed
from leyline_evals.solve.folder import RunFolder, now
from leyline_evals.solve.rows import EpisodeRow

__all__ = ["Progress", "Silent", "Sat", "Sitter", "tasks_of"]

SEED_STEP = 1_000_003
HOPELESS = 3
"""So many first episodes without a reply of the model, for the same reason, end a sitting."""


class Progress(Protocol):
    """Is told how far a sitting is. Called by one thread at a time."""

    def begun(self, cell: Cell) -> None:
        """An episode begins."""
        ...

    def step(self, cell: Cell, record: StepRecord) -> None:
        """One of its replies was carried out."""
        ...

    def ended(self, cell: Cell, row: EpisodeRow | None) -> None:
        """It is over; without a row it is run again."""
        ...


class Silent:
    """Tells nobody."""

    def begun(self, cell: Cell) -> None:
        """An episode begins."""

    def step(self, cell: Cell, record: StepRecord) -> None:
        """One of its replies was carried out."""

    def ended(self, cell: Cell, row: EpisodeRow | None) -> None:
        """It is over."""


@dataclass(frozen=True)
class Sat:
    """What a sitting did.

    Attributes:
        done: episodes it finished, those in error included.
        errors: of them.
        left: episodes of the plan without a row, or with an error.
        cut: episodes that were under way when the time was up; they have no row.
        commonest: what most of the errors say.
        failed: turns in which a policy raised, by "its name: what it raised most often".
    """

    done: int
    errors: int
    left: int
    cut: int = 0
    commonest: str = field(default="", compare=False)
    failed: Mapping[str, int] = field(default_factory=dict, compare=False)


def tasks_of(driver: Driver, folder: RunFolder) -> dict[str, Task]:
    """A run's tasks by id, the same as when it was planned.

    Raises:
        EvalError: one is gone, or has changed.
    """
    known = {task.id: task for task in driver.tasks(())}
    found = {}
    for planned in folder.config.tasks:
        task = known.get(planned.id)
        if task is None or digest_of(task) != planned.digest:
            what = "is not there any more" if task is None else "has changed"
            raise EvalError(
                f"task {planned.id!r} of {folder.path} {what}; restore the benchmark's data as it "
                "was, or run anew in another folder"
            )
        found[planned.id] = task
    return found


@dataclass
class Sitter:
    """Runs what is left of a run. One sitting.

    Args:
        folder: the run, its lock held.
        driver: the benchmark.
        tasks: by id.
        backend: where the model is.
        number: of the sitting, from 1.
        seconds: no episode begins that would, by the longest before, end later, and none goes on
            longer; the first does both.
        retry_errors: run again what ended in an error.
        progress: is told.
    """

    folder: RunFolder
    driver: Driver
    tasks: Mapping[str, Task]
    backend: Backend
    number: int = 1
    seconds: float | None = None
    retry_errors: bool = False
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        self._rows = self.folder.rows()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._first: Cell | None = None
        self._cut = 0
        self._problem: BaseException | None = None
        self._made: list[EpisodeRow] = []
        self._left = self._unfinished()

    def run(self, workers: int) -> Sat:
        """Run episodes, this many at once. After Ctrl-C those under way are given up.

        Raises:
            EvalError: a row cannot be written, or the first episodes had no reply of the model.
        """
        with ThreadPoolExecutor(workers, thread_name_prefix="leyline-eval") as pool:
            try:
                wait([pool.submit(self._work) for _ in range(workers)])
            except BaseException:
                self._stop.set()
                raise
        if self._problem is not None:
            raise self._problem
        counted = sum(row.counts for row in self._rows.values())
        errors = Counter(row.detail for row in self._made if not row.counts)
        failed = Counter[str]()
        for row in self._made:
            failed.update(row.failed)
        return Sat(
            done=len(self._made),
            errors=errors.total(),
            left=self.folder.config.size - counted,
            cut=self._cut,
            commonest=errors.most_common(1)[0][0] if errors else "",
            failed=failed,
        )

    def _unfinished(self) -> Iterator[Cell]:
        for cell in cells(self.folder.config):
            row = self._rows.get((cell.arm.name, cell.task, cell.seed))
            if row is None or (self.retry_errors and not row.counts):
                yield cell

    def _work(self) -> None:
        """A worker: one episode after the other."""
        try:
            while (cell := self._next()) is not None:
                row = self._episode(cell)
                with self._lock:
                    if row is None:
                        self._cut += 1
                    else:
                        self.folder.add(row)
                        self._rows[row.key] = row
                        self._made.append(row)
                        self._check_hope()
                    self.progress.ended(cell, row)
        except BaseException as error:  # Not an episode's: the run itself cannot go on.
            self._problem = self._problem or error
            self._stop.set()

    def _check_hope(self) -> None:
        """Raise where nobody answers: each further episode would end in the same error."""
        if len(self._made) != HOPELESS or len(self._rows) == self.folder.config.size:
            return
        why = {_unanswered(row) for row in self._made}
        if len(why) == 1 and "" not in why:
            model = self.folder.config.model
            where = f" at {model.base_url}" if model.base_url else ""
            raise EvalError(
                f"the first {HOPELESS} episodes got no reply of {model.name}{where}: "
                f"{self._made[-1].detail[:500].rstrip('.')}. See to the model, then go on: "
                f"leyline eval resume {self.folder.path} --retry-errors"
            )

    def _next(self) -> Cell | None:
        with self._lock:
            if self._stop.is_set() or self._time_is_up():
                return None
            cell = next(self._left, None)
            if cell is not None:
                self._first = self._first or cell
                self.progress.begun(cell)
            return cell

    def _time_is_up(self) -> bool:
        if self.seconds is None or self._first is None:
            return False  # However short the sitting, something is done in it.
        longest = max((row.wall_seconds for row in self._rows.values() if row.counts), default=0.0)
        return self._past(self.seconds - longest)

    def _past(self, seconds: float) -> bool:
        return time.monotonic() - self._began > seconds

    def is_over(self, cell: Cell) -> bool:
        """Whether an episode is to be given up, without a row."""
        is_late = self.seconds is not None and cell != self._first and self._past(self.seconds)
        return is_late or self._stop.is_set()

    def _episode(self, cell: Cell) -> EpisodeRow | None:
        """One episode's row; None where it was given up."""
        earlier = self._rows.get((cell.arm.name, cell.task, cell.seed))
        attempt = earlier.attempt + 1 if earlier else 1
        path = self.folder.begin(cell, attempt - 1)
        episode = _Episode(self, cell, path)
        started, begun = now(), time.perf_counter()
        try:
            outcome = episode.run()
        except Interrupted:
            return None
        return EpisodeRow.of(
            cell,
            outcome.ended,
            episode.steps,
            detail=outcome.detail,
            attempt=attempt,
            sitting=self.number,
            started=started,
            wall_seconds=round(time.perf_counter() - begun, 4),
            skipped=episode.skipped,
            failed=episode.failed,
        )


def _unanswered(row: EpisodeRow) -> str:
    """Why an episode had no reply at all, without particulars; "" where it had one."""
    what, *why = row.detail.split(": ", 2)
    is_mute = not row.counts and not row.steps and what == ModelFailed.__name__
    return ": ".join([what, *why[:1]]) if is_mute else ""


@dataclass
class _Episode:
    """One episode: its session, its driver's work, and whatever that ends in."""

    sitter: Sitter
    cell: Cell
    path: Path
    steps: list[StepRecord] = field(default_factory=list)
    skipped: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    def run(self) -> Outcome:
        """How it ended; no error of its own stops the others.

        Raises:
            Interrupted: the sitting ends.
        """
        try:
            outcome = self._run()
            if outcome.patch:
                (self.path / "patch.diff").write_text(outcome.patch, encoding="utf-8")
            return outcome
        except Interrupted:
            raise
        except LimitReached as error:
            ended = Ended.TIMEOUT if error.limit == "seconds" else Ended.LIMIT
            return Outcome(ended=ended, detail=str(error))
        except (Exception, SystemExit) as error:  # Whatever a driver, a tool or a server does.
            if self.sitter.is_over(self.cell):
                raise Interrupted("the sitting ends") from error
            cause = f"{type(error).__name__}: {error}"
            told = f"{cause}\n\n{traceback.format_exc()}"
            (self.path / "error.txt").write_text(told, encoding="utf-8")
            return Outcome(ended=Ended.ERROR, detail=cause[:2000])

    def _run(self) -> Outcome:
        sitter, cell = self.sitter, self.cell
        config = sitter.folder.config
        task = sitter.tasks[cell.task]
        scripted = config.model.name == SCRIPTED
        script = sitter.driver.script(task, cell.seed) if scripted else ()
        tenant = f"{sitter.folder.file.sha256[:12]}/{cell.arm.slug}/{cell.task}/{cell.seed}"
        channel = sitter.backend.open(cell.arm.mechanism, tenant, script)
        try:
            session = Session(
                cell.arm.policies(config.policy_files),
                channel.adapter,
                id=f"{tenant[:200]}/{sitter.number}",
                journal=self.path / "journal.jsonl",
                observations=sitter.driver.observations,
                recall=config.model.recall or None,
            )
            model = EpisodeModel(
                session,
                channel.call,
                config.limits,
                self._sampling(),
                is_over=lambda: sitter.is_over(cell),
            )
            try:
                return sitter.driver.run(
                    task, cell.seed, model, config.limits, self.path, self._record
                )
            finally:
                if model.pending:  # Asked for, and nothing came of it.
                    self._record(model.step())
                self.skipped, self.failed = len(session.skipped), model.failed
        finally:
            channel.close()

    def _sampling(self) -> dict[str, object]:
        """What every call is made with: the same in each arm."""
        model = self.sitter.folder.config.model
        asked: dict[str, object] = {"temperature": model.temperature, "top_p": model.top_p}
        asked["seed"] = self.cell.seed * SEED_STEP
        return {key: value for key, value in asked.items() if value is not None}

    def _record(self, step: StepRecord) -> None:
        with (self.path / "steps.jsonl").open("a", encoding="utf-8") as file:
            file.write(step.model_dump_json(exclude_defaults=True) + "\n")
        self.steps.append(step)
        with self.sitter._lock:
            self.sitter.progress.step(self.cell, step)
