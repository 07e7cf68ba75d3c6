"""One line an episode: what became of it and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from leyline_evals.solve.config import Cell
from leyline_evals.solve.driver import Ended, StepRecord

__all__ = ["EpisodeRow", "Key", "rereads"]

Key = tuple[str, str, int]
"""An arm's name, a task's id, a seed."""

_SUMS = ("prompt", "exact", "spliced", "recomputed", "prefilled", "completion", "calls", "edits")


class EpisodeRow(BaseModel):
    """A finished episode. Tokens and times are sums over its steps.

    Attributes:
        attempt: from 1; more where an earlier one ended in an error.
        wall_seconds: from the driver's start to its grade.
        model_seconds, tool_seconds, session_seconds: parts of it.
        ttft_ms: of each step that was timed.
        rereads: reads of a path that had been read before and not written since.
        cost: in dollars, as the provider's prices are known; None where they are not.
        actions: how often each was asked for.
        skipped: policies and edits that were not taken.
        failed: turns in which a policy raised, by "its name: what it raised most often".
        sitting: in which it was run, from 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["episode"] = "episode"
    arm: str
    task: str
    seed: int
    ended: Ended
    detail: str = ""
    attempt: int = Field(1, ge=1)
    sitting: int = Field(1, ge=1)
    started: str = ""
    steps: int = 0
    wall_seconds: float = 0.0
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    session_seconds: float = 0.0
    prompt: int = 0
    exact: int = 0
    spliced: int = 0
    recomputed: int = 0
    prefilled: int = 0
    completion: int = 0
    calls: int = 0
    edits: int = 0
    modes: dict[str, int] = Field(default_factory=dict)
    reasons: dict[str, int] = Field(default_factory=dict)
    ttft_ms: tuple[float, ...] = ()
    recalls: int = 0
    rereads: int = 0
    cost: float | None = None
    actions: dict[str, int] = Field(default_factory=dict)
    skipped: int = 0
    failed: dict[str, int] = Field(default_factory=dict)

    @property
    def key(self) -> Key:
        """Which episode of the plan it is."""
        return self.arm, self.task, self.seed

    @property
    def counts(self) -> bool:
        """Whether it says something about the arm: an error does not."""
        return self.ended is not Ended.ERROR

    @property
    def solved(self) -> bool:
        """Whether the task was."""
        return self.ended is Ended.RESOLVED

    @classmethod
    def of(
        cls, cell: Cell, ended: Ended, steps: Sequence[StepRecord], **told: object
    ) -> EpisodeRow:
        """The row of an episode's steps; `told` are its other fields."""
        modes, reasons = Counter[str](), Counter[str]()
        for step in steps:
            modes.update(step.modes)
            reasons.update(step.reasons)
        costs = [step.cost for step in steps if step.cost is not None]
        summed = {name: sum(getattr(step, name) for step in steps) for name in _SUMS}
        return cls.model_validate(
            {
                "arm": cell.arm.name,
                "task": cell.task,
                "seed": cell.seed,
                "ended": ended,
                "steps": len(steps),
                "model_seconds": round(sum(step.model_seconds for step in steps), 4),
                "tool_seconds": round(sum(step.tool_seconds for step in steps), 4),
                "session_seconds": round(sum(step.session_ms for step in steps) / 1e3, 4),
                "modes": dict(modes),
                "reasons": dict(reasons),
                "ttft_ms": [round(s.ttft_ms, 3) for s in steps if s.ttft_ms is not None],
                "recalls": sum(step.recalls for step in steps),
                "rereads": rereads(steps),
                "cost": sum(costs) if costs else None,
                "actions": dict(Counter(step.action for step in steps if step.action)),
                **summed,
                **told,
            }
        )


def rereads(steps: Iterable[StepRecord]) -> int:
    """Reads of paths that had been read before, and not written since."""
    known: set[str] = set()
    found = 0
    for step in steps:
        found += len(known.intersection(step.reads))
        known.update(step.reads)
        known.difference_update(step.writes)
    return found
