"""Drivers: what a benchmark has to say to be run. The runner does all else.

A driver runs one episode: it shows the task to the model, carries out what the model asks for, and
grades the result. It knows nothing of arms, seeds' order, resuming or statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from leyline_agent.message import Message
from leyline_agent.testing.model import Reply
from leyline_agent.trajectory import Observations

__all__ = ["Driver", "Ended", "Limits", "Model", "Outcome", "Record", "StepRecord", "Task"]


class Task(BaseModel):
    """One task of a benchmark.

    Attributes:
        id: unique in its benchmark.
        benchmark: where it comes from.
        group: tasks of a kind, for tables; "" for none.
        payload: what the driver needs of it, as JSON; its digest names the task in a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1)
    benchmark: str
    group: str = ""
    payload: dict[str, Any] = Field(default_factory=dict)


class Limits(BaseModel):
    """How much one episode may take; the same for every arm.

    Attributes:
        steps: replies of the model.
        seconds: wall time of the whole episode. Slow arms reach it sooner: set it so that none
            does; what it ends is a `timeout`, told apart in every table.
        step_seconds: wall time of one tool call; the driver's to hold.
        tokens: tokens generated in all; None for no limit.
        reply_tokens: tokens of one reply.
        repeats: the same reply this many times in a row ends the episode; 0 never does.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(40, ge=1)
    seconds: float = Field(3600.0, gt=0)
    step_seconds: float = Field(60.0, gt=0)
    tokens: int | None = Field(None, ge=1)
    reply_tokens: int = Field(1024, ge=1)
    repeats: int = Field(8, ge=0)


class Ended(str, Enum):
    """How an episode ended. All but `error` count in rates; all but `resolved` as not solved."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    LIMIT = "limit"
    TIMEOUT = "timeout"
    ERROR = "error"


class Outcome(BaseModel):
    """The end of an episode.

    Attributes:
        ended: how. `error` is for what says nothing about the model: no sandbox, a broken tool.
        detail: why, in a sentence.
        patch: what the agent changed, as a unified diff.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ended: Ended
    detail: str = ""
    patch: str = ""


class StepRecord(BaseModel):
    """One reply of the model and what was done with it: a line of `steps.jsonl`.

    `prompt = exact + spliced + recomputed + prefilled`. Where the session hid calls (recalls), the
    tokens and times are of all calls.

    Attributes:
        number: from 1.
        at: seconds since the episode began, when the reply was there.
        calls: calls of the model behind this reply.
        prompt, exact, spliced, recomputed, prefilled: prompt tokens, as in a receipt.
        completion: tokens generated.
        edits: edits made before the call.
        modes: of those edits, how many were carried out in each mode.
        reasons: of those edits, why not as asked; "asked" left out.
        ttft_ms: milliseconds to the first token; None where nobody measures it.
        model_seconds: wall time of the model's calls.
        session_ms: what policies, history and journal took.
        tool_seconds: wall time of what the driver did with the reply.
        recalls: outputs the model asked to see again.
        cost: in dollars; None where no price is known.
        stopped: the finish reason.
        action: what the reply asked for, in a word: "bash", "submit", "malformed", ...
        reads, writes: paths that the action read whole or in part, and that it changed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    at: float = 0.0
    calls: int = 1
    prompt: int = 0
    exact: int = 0
    spliced: int = 0
    recomputed: int = 0
    prefilled: int = 0
    completion: int = 0
    edits: int = 0
    modes: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)
    ttft_ms: float | None = None
    model_seconds: float = 0.0
    session_ms: float = 0.0
    tool_seconds: float = 0.0
    recalls: int = 0
    cost: float | None = None
    stopped: str = ""
    action: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


Record = Callable[[StepRecord], None]
"""Writes a step down; it is on disk when this returns."""


class Model(Protocol):
    """What a driver asks: `EpisodeModel`, a session of one arm in front of a model."""

    def __call__(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> Message:
        """The assistant message in answer to the conversation as the driver has it, uncut.

        Raises:
            EpisodeEnded: a limit is reached, the model failed, or the sitting ends.
        """
        ...

    def step(
        self,
        action: str = "",
        tool_seconds: float = 0.0,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
    ) -> StepRecord:
        """The last reply's record, with what the driver knows of it; for `record`."""
        ...


class Driver(Protocol):
    """A benchmark. Thread-safe: episodes run in parallel.

    Attributes:
        name: the command's: `leyline eval NAME`.
        options: what it was made with, as JSON; `make(**options)` makes it again.
        observations: "user" where tools' outputs go to the model as user messages (the plain text
            protocol), "tool" where they are results of tool calls; policies need to know.
    """

    @property
    def name(self) -> str:
        """The command's name."""
        ...

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with."""
        ...

    @property
    def observations(self) -> Observations:
        """How outputs go to the model."""
        ...

    def tasks(self, selection: Sequence[str]) -> Sequence[Task]:
        """The tasks whose ids match one of the patterns (`fnmatch`), in a fixed order; all for ().

        Raises:
            LeylineError: a pattern matches none, or the benchmark's data is not there.
        """
        ...

    def versions(self) -> dict[str, str]:
        """What it runs with, by name: packages, images, the sandbox.

        Raises:
            LeylineError: one of them is not there; asked before a run is registered.
        """
        ...

    def script(self, task: Task, seed: int) -> Sequence[Reply]:
        """What `--model scripted` says in an episode, as for `testing.DeterministicModel`.

        Raises:
            LeylineError: the benchmark does not know what solves the task.
        """
        ...

    def run(
        self,
        task: Task,
        seed: int,
        model: Model,
        limits: Limits,
        folder: Path,
        record: Record,
    ) -> Outcome:
        """Run one episode and grade it.

        A driver catches `LimitReached`, grades what is there, and says `limit` (`timeout` for
        "seconds") where it is not solved. It lets all other errors pass: the runner writes them
        down as `error`, and the other episodes go on.

        Args:
            task: the task.
            seed: of the episode, for whatever the driver draws; the model has it already.
            model: answers; `record(model.step(...))` after each reply has been carried out.
            limits: `step_seconds` is the driver's to hold, the rest is held by `model`.
            folder: the episode's own, empty; what is put there is kept.
            record: writes a step down.
        """
        ...
