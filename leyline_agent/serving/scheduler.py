"""The scheduler: jobs from any thread, computed together.

Whoever waits for a result drives: the first thread to come computes for all, the others wait. So
requests of several threads are batched, and one alone needs no thread but its own. A server has a
thread that always drives (`serving.thread`).
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from leyline_agent.serving.host import Host
from leyline_agent.serving.scheduler_core import Core, Job, Steps, Task

__all__ = ["Job", "Scheduler", "Steps", "Task"]

T = TypeVar("T")


class Scheduler:
    """Drives jobs. Thread-safe.

    Args:
        engine: computes; its configuration says how much at once.
    """

    def __init__(self, engine: Host) -> None:
        self.engine = engine
        self._core = Core(engine)
        self._arrived: deque[Task[Any]] = deque()
        self._numbers = itertools.count()
        self._turn = threading.Condition()
        self._driven = False  # by some thread; no other touches the core
        self._idle = True  # nothing waits or runs in the core
        self._news = False  # a task has ended or paused: somebody may wait for that

    @property
    def num_running(self) -> int:
        """How many requests are being worked on."""
        return len(self._core.running)

    @property
    def num_waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._arrived) + len(self._core.waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return self._idle and not self._arrived

    def run(self, job: Job[T]) -> T:
        """Do a job, computing for others too if nobody else does. Raises what its steps raise."""
        task = self.submit(job)
        try:
            self.drive(lambda: task.done)
        finally:
            self._discard(task)
        return task.result()

    def stream(self, job: Job[Any]) -> Iterator[Any]:
        """What a job sends, each when it is asked for; in between it holds nobody up.

        It may be left lying, so no job of its key waits for it. Closing it cancels the job.
        """
        bodies: deque[Any] = deque()
        task = self._task(Job(job.steps), bodies.append, lambda: None)
        task.lazy = True
        try:
            while not task.done:
                self._arrive(task)
                self.drive(lambda: task.paused or task.done)
                while bodies:
                    yield bodies.popleft()
            task.result()
        finally:
            self._discard(task)

    def submit(
        self,
        job: Job[T],
        tell: Callable[[Any], None] = lambda body: None,
        ended: Callable[[], object] = lambda: None,
    ) -> Task[T]:
        """Begin a job as soon as it is its turn; some thread has to drive.

        Args:
            job: what to do.
            tell: called with what it sends, on the thread that drives.
            ended: called when it is done, likewise.
        """
        task = self._task(job, tell, ended)
        self._arrive(task)
        return task

    def cancel(self, task: Task[Any]) -> None:
        """Nobody wants it any more: the pass that runs now is its last. Harmless when it is done.

        Waits for nothing; the thread that drives ends it.
        """
        task.cancelled = True
        self.wake()

    def drive(self, until: Callable[[], bool]) -> None:
        """Compute, or wait while another thread does, until a condition holds between passes."""
        while True:
            with self._turn:
                self._turn.wait_for(lambda: until() or not (self._driven or self.idle))
                if until():
                    return
                self._driven = True
            try:
                while not until() and not self.idle:
                    self._round()
            finally:
                with self._turn:
                    self._driven = False
                    self._turn.notify_all()

    def wake(self) -> None:
        """Have threads that wait look at their conditions again."""
        with self._turn:
            self._turn.notify_all()

    def _round(self) -> None:
        self._idle = False  # should the pass be interrupted
        while self._arrived:
            self._core.take(self._arrived.popleft())
        self._idle = not self._core.round()
        if self._news:
            self._news = False
            self.wake()

    def _discard(self, task: Task[Any]) -> None:
        """End a task nobody waits for any more; a paused one at once, on whatever thread it is."""
        if task.paused and not task.done:
            self._core.close(task)
        elif not task.done:
            self.cancel(task)
            self.drive(lambda: task.done)

    def _task(
        self, job: Job[T], tell: Callable[[Any], None], ended: Callable[[], object]
    ) -> Task[T]:
        def told(body: Any) -> None:
            tell(body)
            self._news = True

        def end() -> None:
            ended()
            self._news = True

        return Task(job, next(self._numbers), told, end)

    def _arrive(self, task: Task[Any]) -> None:
        task.paused = False
        self._arrived.append(task)
        self.wake()
