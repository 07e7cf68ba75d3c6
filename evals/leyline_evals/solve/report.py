"""What a report holds: what `leyline eval report --json` prints. Documented in docs/evals.md."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.config import Registration
from leyline_evals.solve.driver import Ended

__all__ = ["ArmReport", "Comparison", "EvalComparison", "EvalReport", "RunReport", "TaskReport"]


class ArmReport(BaseModel):
    """One arm over its finished episodes; those in error count in `ended` alone.

    Attributes:
        rate, low, high: of solved episodes, with the Wilson interval.
        prefilled_per_solved, compute_per_solved: tokens of all episodes for each solved one.
        wall_per_solved: seconds, likewise. cost_per_solved: dollars.
        ttft_p50, ttft_p99: milliseconds to the first token, of `ttft_turns` turns.
        rereads: reads of a path read before and not written since.
        failed: turns in which a policy raised, by "its name: what it raised most often".
        modes, reasons: edits by the mode used, and by why where that was not asked.
        overhead: the part of the wall time that neither the model nor a tool took.
    """

    arm: str
    policy: str
    mechanism: Mechanism
    episodes: int
    solved: int
    rate: float | None
    low: float
    high: float
    ended: dict[Ended, int]
    steps: int
    prompt_tokens: int
    exact_tokens: int
    spliced_tokens: int
    recomputed_tokens: int
    prefilled_tokens: int
    compute_tokens: int
    completion_tokens: int
    prefilled_per_solved: float | None
    compute_per_solved: float | None
    wall_seconds: float
    wall_per_solved: float | None
    cost: float | None
    cost_per_solved: float | None
    ttft_p50: float | None
    ttft_p99: float | None
    ttft_turns: int
    edits: int
    modes: dict[str, int]
    reasons: dict[str, int]
    recalls: int
    rereads: int
    malformed: int
    skipped: int
    failed: dict[str, int]
    overhead: float | None

    @property
    def declares(self) -> bool:
        """Whether the engine was told of any edit."""
        return self.mechanism.declares and self.edits > 0


class Comparison(BaseModel):
    """Two arms over the tasks and seeds that both finished; the difference is second - first.

    Attributes:
        low, high: 95 % of bootstrap draws of whole tasks.
        p: exact permutation of the arms within tasks, two-sided.
        p_holm: corrected for the number of secondary comparisons; None of the primary one.
        gained, lost: tasks that only the second, only the first solves in most seeds.
        mcnemar: exact, over these.
    """

    first: str
    second: str
    tasks: int
    pairs: int
    first_rate: float | None
    second_rate: float | None
    difference: float | None
    low: float
    high: float
    p: float
    p_holm: float | None = None
    gained: int
    lost: int
    mcnemar: float


class TaskReport(BaseModel):
    """One task: by arm, how many of its finished episodes solved it."""

    task: str
    group: str = ""
    solved: dict[str, int]
    episodes: dict[str, int]


class RunReport(BaseModel):
    """One run.

    Attributes:
        sha256: of the config, which holds the registration.
        due: every planned episode was run; before, the comparisons are a look in between, and they
            are final where no error is left.
        retried: episodes that count in a later attempt, after one that ended in an error.
    """

    run: str
    sha256: str
    created: str
    benchmark: str
    model: str
    seeds: int
    planned: int
    finished: int
    errors: int
    due: bool
    retried: int
    sittings: int
    versions: dict[str, str]
    registration: Registration | None
    arms: list[ArmReport]
    primary: Comparison | None
    secondary: list[Comparison]
    tasks: list[TaskReport]
    notes: list[str] = Field(default_factory=list)
    problems: list[str] = Field(default_factory=list)


class EvalReport(BaseModel):
    """Some runs."""

    format: Literal["leyline-eval-report"] = "leyline-eval-report"
    version: Literal[1] = 1
    leyline: str
    runs: list[RunReport]


class EvalComparison(BaseModel):
    """Two runs, arm by arm: what `leyline eval compare --json` prints.

    Attributes:
        tasks: those that both have, as the same.
        changed: those that both have by name, with other contents; left out.
    """

    format: Literal["leyline-eval-compare"] = "leyline-eval-compare"
    version: Literal[1] = 1
    leyline: str
    a: str
    b: str
    tasks: int
    changed: list[str]
    arms: list[Comparison]
    notes: list[str] = Field(default_factory=list)
