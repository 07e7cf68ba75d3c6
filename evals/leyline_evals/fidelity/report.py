"""The report of a measurement: what `leyline fidelity --json` writes. In docs/fidelity.md."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from leyline_agent.directive import Mode
from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.records import Config
from leyline_evals.replay.report import Machine

__all__ = ["ArmFigures", "Comparison", "FidelityReport", "ProbeFigures", "Verdict"]


class ArmFigures(BaseModel):
    """One arm over all edits of recorded runs (of generated ones where there are no others).

    Attributes:
        edits: how many.
        kl_mean, kl_low, kl_high: KL(honest || arm) in nats a token, and its 95 % interval.
        kl_median, kl_p95, kl_worst: over edits.
        top1: how often the likeliest token agrees.
        recomputed: kept tokens computed again, a mean.
        share: of the kept tokens behind the edit, all edits together.
        calls: edits whose next call was compared.
        same_call: of those, how many were the same; None where none was.
    """

    edits: int
    kl_mean: float
    kl_low: float
    kl_high: float
    kl_median: float
    kl_p95: float
    kl_worst: float
    top1: float
    recomputed: float = 0.0
    share: float = 0.0
    calls: int = 0
    same_call: float | None = None


class ProbeFigures(BaseModel):
    """One arm's answers to the generated questions.

    Attributes:
        copies, copied: questions for a line, and the share of lines said without a mistake.
        stale, stale_nats: questions for a changed value, and by how much the old value gained on
            another number, against honest.
        prefers_old: share of them in which the old value is likelier than the new one.
        secrets, secret_nats, secret_worst: likewise for a removed number; the mean and the worst.
    """

    copies: int = 0
    copied: float | None = None
    stale: int = 0
    stale_nats: float | None = None
    prefers_old: float | None = None
    secrets: int = 0
    secret_nats: float | None = None
    secret_worst: float | None = None


class Verdict(BaseModel):
    """Whether a model is fit for a mode.

    Attributes:
        mode: the mode.
        fit: whether.
        why: what decided, each with its figures.
    """

    mode: Mode
    fit: bool
    why: list[str] = Field(default_factory=list)


class Comparison(BaseModel):
    """A registered comparison: is `left` nearer to honest than `right`?

    Attributes:
        primary: registered as the primary one; the others are adjusted for each other.
        order: when the edits come.
        edits, clusters: how many, and of how many trajectories.
        difference, low, high: of mean KL, left - right, and its 95 % interval.
        p, p_holm: two-sided; `p_holm` is adjusted, and p itself for a primary one.
        nearer: share of edits in which `left` is nearer.
    """

    left: str
    right: str
    primary: bool = False
    order: Order
    edits: int
    clusters: int
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    nearer: float


class FidelityReport(BaseModel):
    """A measurement of one model.

    Attributes:
        fingerprint: of the model (`leyline_agent.serving.fidelity`).
        repair: the engine's repair set when this was measured.
        floor: the weakest mode the model is fit for: what an engine obeys.
        verdicts: of every mode, with what decided.
        edits, clusters, generated: measured edits of recorded runs, their trajectories, and
            generated edits.
        skipped: edits that could not be measured, by why.
        controls: "noise" is honest in another chunking, "unedited" the edit undone.
        arms: by order and name.
        probes: generated questions, controls (and honest itself) among the arms; edit first.
        comparisons: as registered.
        asked: edits that were to be measured: of recorded runs, or generated where there are none.
        available: how many of these there are; None where enough were found before their end.
        complete: all asked for are measured, or as many there are and the others in `skipped`.
    """

    format: Literal["leyline-fidelity"] = "leyline-fidelity"
    version: Literal[1] = 1
    leyline: str
    config: Config
    fingerprint: str
    repair: dict[str, int]
    machine: Machine
    seconds: float
    floor: Mode
    verdicts: list[Verdict]
    edits: int
    clusters: int
    generated: int
    skipped: dict[str, int] = Field(default_factory=dict)
    controls: dict[str, ArmFigures] = Field(default_factory=dict)
    arms: dict[Order, dict[str, ArmFigures]] = Field(default_factory=dict)
    probes: dict[str, ProbeFigures] = Field(default_factory=dict)
    comparisons: list[Comparison] = Field(default_factory=list)
    asked: int = 0
    available: int | None = None
    complete: bool = False
