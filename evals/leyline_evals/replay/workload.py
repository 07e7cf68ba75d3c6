"""The workload: recorded runs out of files, and what of them cannot be replayed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from leyline_agent.errors import TrajectoryError
from leyline_agent.message import Message
from leyline_agent.readers import Recording, read
from leyline_agent.readers.source import open_bytes

__all__ = ["Run", "Skipped", "Workload"]


@dataclass(frozen=True)
class Run:
    """One recorded run.

    Attributes:
        file: where it was read.
        number: its place among the file's readable runs, from 0.
        recording: its messages and tools.
    """

    file: str
    number: int
    recording: Recording

    @property
    def id(self) -> str:
        """The run's name in its file; of a run without one, the file's name and its place."""
        name = self.recording.id
        return f"{Path(self.file).stem}, {name}" if name == f"run-{self.number + 1}" else name

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """Places of the recorded replies: assistant messages with something in front of them."""
        return tuple(
            index
            for index, message in enumerate(self.recording.messages)
            if index and message["role"] == "assistant"
        )

    def prompt(self, index: int) -> list[Message]:
        """The messages the reply at place `index` answered."""
        return list(self.recording.messages[:index])


@dataclass(frozen=True)
class Skipped:
    """A record that was not replayed, and why."""

    where: str
    reason: str


@dataclass
class Workload:
    """The runs of some files, read as they are needed. Iterating again reads again.

    Args:
        files: JSON or JSON lines, gzipped or not, of any format Leyline reads.
        limit: at most this many runs, over all files.

    Attributes:
        skipped: filled while iterating.
    """

    files: Sequence[Path]
    limit: int | None = None
    skipped: list[Skipped] = field(default_factory=list)

    def check(self) -> None:
        """Raise TrajectoryError when a file cannot be opened: now, not when its turn comes."""
        for file in self.files:
            with open_bytes(file):
                pass

    def __iter__(self) -> Iterator[Run]:
        self.check()
        self.skipped.clear()
        left = self.limit
        found = False
        for file in self.files:
            for run in self._runs(file):
                if left == 0:
                    return
                found = True
                left = None if left is None else left - 1
                yield run
        if not found:
            first = self.skipped[0].reason if self.skipped else "no file was given"
            raise TrajectoryError(f"nothing to replay: {first}")

    def _runs(self, file: Path) -> Iterator[Run]:
        def skip(error: TrajectoryError) -> None:
            self.skipped.append(Skipped(str(file), str(error)))

        try:
            for number, recording in enumerate(read(file, on_error=skip)):
                run = Run(str(file), number, recording)
                if run.turns:
                    yield run
                else:
                    reason = f"{recording.id}: no model call in it"
                    self.skipped.append(Skipped(str(file), reason))
        except TrajectoryError as error:  # nothing of the rest can be read
            skip(error)
