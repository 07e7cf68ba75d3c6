"""The scheduler's core: what is computed next, and who gives way. One thread at a time.

A request is a generator of steps. It yields a run to have it computed, the room it lacks to wait
for it, and whatever else there is to send; it returns its result. One forward pass takes a token of
every reply first and fills up with prompts, in order of arrival, so a long prompt holds a reply
up for one pass at a time:

    pass 1   [a][b][c .... first chunk of a new prompt ....]
    pass 2   [a][b][c .... second chunk ...................]
    pass 3   [a][b][c]

Where slots run out, the latest request gives way. One that has sent nothing yet is begun again
when another has ended; else it waits; and if all that run wait, the latest that holds slots fails
with `OutOfSlots`. So no request fails because a later one came.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from leyline_agent.errors import OutOfSlots
from leyline_agent.serving.host import Host
from leyline_agent.serving.run import Run

__all__ = ["Core", "Job", "Steps", "Task"]

T = TypeVar("T")

Steps = Generator[Any, None, T]
"""Yields runs to compute (`Run`), room it lacks (`OutOfSlots`) and bodies to send."""


@dataclass(frozen=True)
class Job(Generic[T]):
    """A request, not begun.

    Attributes:
        steps: begins it; called again where it has to begin again, which only happens before
            anything was sent.
        key: jobs of one key are done one after the other; None for no such care.
    """

    steps: Callable[[], Steps[T]]
    key: Hashable | None = None

    @classmethod
    def of(cls, function: Callable[[], T], key: Hashable | None = None) -> Job[T]:
        """A job of one step: a short function."""

        def steps() -> Steps[T]:
            yield from ()
            return function()

        return cls(steps, key)


@dataclass(eq=False)
class Task(Generic[T]):
    """A job on its way.

    Attributes:
        number: counts arrivals.
        tell: called with what there is to send, on whichever thread drives.
        ended: called at the end, likewise.
        lazy: it pauses whenever it has sent something.
        paused: it has, or has not begun.
        cancelled: nobody wants it any more.
        done: it has ended; `result` says how.
    """

    job: Job[T]
    number: int
    tell: Callable[[Any], None]
    ended: Callable[[], object]
    lazy: bool = False
    paused: bool = True
    cancelled: bool = False
    done: bool = False
    sent: bool = False
    steps: Steps[T] | None = None
    run: Run | None = None  # to be computed before it goes on
    holds: bool = False  # slots
    lacking: OutOfSlots | None = None  # why it waits for others to end
    served: int = 0  # the last pass it was in
    error: BaseException | None = None
    value: T | None = None

    def result(self) -> T:
        """What the steps returned. Raises what they raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class Core:
    """Tasks that wait, tasks that run, and the passes over them.

    Args:
        engine: computes; its configuration says how much at once.

    Attributes:
        waiting: tasks that have not begun, in order of arrival.
        running: tasks that have, those that lack room included.
    """

    def __init__(self, engine: Host) -> None:
        self.engine = engine
        self.waiting: list[Task[Any]] = []
        self.running: list[Task[Any]] = []
        self._freed = False  # some task has ended since those that lack room last tried
        self._passes = itertools.count(1)

    def take(self, task: Task[Any]) -> None:
        """Take a task in, new or paused before."""
        if task.steps is None:
            self.waiting.append(task)
            return
        self.running.append(task)
        self._advance(task)

    def round(self) -> bool:
        """Close what was cancelled, begin what may begin, and compute one pass.

        Returns:
            Whether there was anything to do.
        """
        for task in [*self.waiting, *self.running]:
            if task.cancelled:
                self.close(task)
        self._retry()
        self._admit()
        batch = self._batch()
        if batch:
            self._compute(batch)
        elif self.running and all(task.lacking for task in self.running):
            self._fail_one()
        return bool(self.waiting or self.running)

    def close(self, task: Task[Any]) -> None:
        """End a task where it stands; what it computed for nobody is given up."""
        if task.steps is not None:
            task.steps.close()
        self._end(task)

    # -- who runs -----------------------------------------------------------------------------

    def _admit(self) -> None:
        """Begin tasks in order of arrival, none while an earlier one lacks room."""
        for task in list(self._eligible()):
            full = len(self.running) >= self.engine.config.max_batch
            if full or any(other.lacking for other in self.running):
                return
            self.waiting.remove(task)
            self.running.append(task)
            self._advance(task)

    def _eligible(self) -> Iterator[Task[Any]]:
        """Waiting tasks whose key no earlier task has."""
        keys = {task.job.key for task in self.running}
        for task in self.waiting:
            if task.job.key is None or task.job.key not in keys:
                yield task
            keys.add(task.job.key)

    def _advance(self, task: Task[Any], error: BaseException | None = None) -> None:
        """Go on with a task until it needs something or has ended."""
        task.run = task.lacking = None
        if task.steps is None:
            task.steps = task.job.steps()
        while True:
            try:
                item = next(task.steps) if error is None else task.steps.throw(error)
            except StopIteration as stop:
                task.value = stop.value
                return self._end(task)
            except BaseException as failure:
                self._end(task, failure)
                if isinstance(failure, Exception):
                    return None
                raise
            error = None
            if isinstance(item, Run):
                task.holds = True
                if len(item.pending):
                    task.run = item
                    return None
            elif isinstance(item, OutOfSlots):
                if not self._give_way(task):
                    task.lacking = item
                    return None
            elif self._sent(task, item):
                return None

    def _sent(self, task: Task[Any], body: Any) -> bool:
        """Send a body; whether the task pauses now."""
        task.sent = True
        task.tell(body)
        if task.lazy:
            self.running.remove(task)
            task.paused = True
        return task.lazy

    def _end(self, task: Task[Any], error: BaseException | None = None) -> None:
        for tasks in (self.waiting, self.running):
            if task in tasks:
                tasks.remove(task)
        task.run = task.steps = task.lacking = None
        task.error, task.done = error, True
        self._freed = True
        task.ended()

    # -- who gives way ------------------------------------------------------------------------

    def _give_way(self, task: Task[Any]) -> bool:
        """Have the latest task that came after this one, and may, begin again; if there is one."""
        later = [t for t in self.running if t.number > task.number and t.holds and not t.sent]
        if not later:
            return False
        victim = max(later, key=lambda t: t.number)
        assert victim.steps is not None
        victim.steps.close()
        victim.steps = victim.run = None
        victim.holds = False
        victim.lacking = OutOfSlots("an earlier request needed its slots")
        return True

    def _retry(self) -> None:
        """After some task has ended, those that lack room try again, the earliest first."""
        if self._freed:
            self._freed = False
            lacking = [task for task in self.running if task.lacking is not None]
            for task in sorted(lacking, key=lambda t: t.number):
                self._advance(task)

    def _fail_one(self) -> None:
        """All that run lack room: fail the latest that holds some, or, if none does, the first."""
        holding = [task for task in self.running if task.holds]
        task = max(holding, key=lambda t: t.number) if holding else self.running[0]
        error = task.lacking
        if task.steps is None:
            self._end(task, error)
        else:
            self._advance(task, error)

    # -- what is computed ---------------------------------------------------------------------

    def _batch(self) -> list[tuple[Task[Any], Run, int]]:
        """Who is in the next pass, with how many tokens: replies first, then prompts."""
        ready = [(task, task.run) for task in self.running if task.run is not None]
        config = self.engine.config
        # Who has waited longest comes first, should there be more than fit.
        replies = sorted((t for t in ready if len(t[1].pending) == 1), key=lambda t: t[0].served)
        batch = [(task, run, 1) for task, run in replies[: config.max_batch]]
        room = max(1, config.chunk - len(batch))
        prompts = sorted((t for t in ready if len(t[1].pending) > 1), key=lambda t: t[0].number)
        for task, run in prompts:
            size = min(room, len(run.pending))
            if size:
                batch.append((task, run, size))
            room -= size
        number = next(self._passes)
        for task, _, _ in batch:
            task.served = number
        return batch

    def _compute(self, batch: list[tuple[Task[Any], Run, int]]) -> None:
        """Compute a pass and go on with what is complete.

        Where that fails, each is computed alone, and fails alone.
        """
        try:
            with self.engine.exclusive():
                self.engine.compute([(run, size) for _, run, size in batch])
        except Exception as error:
            if len(batch) == 1:
                self._advance(batch[0][0], error)
                return
            for one in batch:
                self._compute([one])
            return
        for task, run, _ in batch:
            if not len(run.pending) and task.run is run:  # else another gave way to it meanwhile
                self._advance(task)
