"""The report of a replay: what `leyline replay --json` writes. Documented in docs/replay.md."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from leyline_agent.directive import Mode
from leyline_agent.receipt import Reason
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.records import Config, Ended

__all__ = [
    "ArmFigures",
    "FidelityFigures",
    "Machine",
    "ReplayReport",
    "RunSummary",
    "SkippedRecord",
    "Spread",
]


class Spread(BaseModel):
    """How measured values lie: percentiles, and how many values there are."""

    p25: float
    p50: float
    p75: float
    p99: float
    n: int


class ArmFigures(BaseModel):
    """One arm over all runs; only turns that every arm did, so that arms compare.

    `compute = recomputed + prefilled`, `reused = exact + spliced`, and the prompt is all four.
    """

    turns: int
    prompt_tokens: int
    exact_tokens: int
    spliced_tokens: int
    reused_tokens: int
    recomputed_tokens: int
    prefilled_tokens: int
    compute_tokens: int
    compute_ratio: float | None = None
    hit_rate: float
    edits: int
    turns_with_edits: int
    reasons: dict[Reason, int] = Field(default_factory=dict)
    modes: dict[Mode, int] = Field(default_factory=dict)
    ttft_ms: Spread | None = None
    ttft_after_edit_ms: Spread | None = None
    sooner: Spread | None = None
    sooner_without_edit: Spread | None = None
    splice_us: Spread | None = None
    copy_us: Spread | None = None
    session_ms: Spread | None = None


class FidelityFigures(BaseModel):
    """How near an arm's predictions are to honest re-prefill, over the measured turns."""

    turns: int
    tokens: int
    kl: Spread
    kl_mean: float
    kl_max: float
    top1: float


class RunSummary(BaseModel):
    """One run: how many turns it has, how many each arm did, and why not all."""

    file: str
    id: str
    format: str
    messages: int
    turns: int
    turns_done: dict[Arm, int]
    ended: dict[Arm, Ended] = Field(default_factory=dict)


class SkippedRecord(BaseModel):
    """A record that was not replayed."""

    where: str
    reason: str


class Machine(BaseModel):
    """What the figures were measured on."""

    cpu: str
    cores: int
    threads: int
    dtype: str
    load_at_start: float | None = None


class ReplayReport(BaseModel):
    """A whole replay."""

    format: Literal["leyline-replay"] = "leyline-replay"
    version: Literal[1] = 1
    leyline: str
    config: Config
    machine: Machine
    seconds: float
    runs: list[RunSummary]
    skipped: list[SkippedRecord]
    arms: dict[Arm, ArmFigures]
    sooner_than: Arm | None = None
    fidelity: dict[str, FidelityFigures] | None = None
    problems: list[str] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
