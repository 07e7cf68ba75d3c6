"""The report of a load: what `leyline replay --concurrency ... --json` writes (docs/replay.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from leyline_evals.load.player import Played
from leyline_evals.replay import totals
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.records import Row
from leyline_evals.replay.report import ArmFigures, Machine, SkippedRecord

__all__ = ["LoadConfig", "LoadReport", "Point", "points", "problems"]


class LoadConfig(Row):
    """What makes two loads comparable.

    Attributes:
        workload: the synthetic one as text, or the recorded files.
        policy: in its text form.
        engine: the adapter as asked for.
        model: as asked for; "" where the server decides.
        tokens_only: no model ran.
        reply_tokens: tokens generated a call.
        max_turns: calls of each conversation; None for all.
        fulfil: who answers the policy's questions; "" for nobody.
    """

    workload: str
    policy: str
    engine: str
    model: str
    tokens_only: bool
    reply_tokens: int
    max_turns: int | None = None
    fulfil: str = ""


class Point(BaseModel):
    """One arm at one concurrency, over the turns that every arm did there.

    Attributes:
        concurrency: calls under way at most.
        arm: how the conversations were served.
        figures: tokens, hit rate, times to the first token as the client saw them.
        calls: of all conversations, those that other arms did not do among them.
        seconds: they took together.
        ended: conversations that did not come to their end, by the error's name.
    """

    concurrency: int
    arm: Arm
    figures: ArmFigures
    calls: int
    seconds: float
    ended: dict[str, int] = Field(default_factory=dict)

    @property
    def calls_per_second(self) -> float:
        """Calls answered a second."""
        return self.calls / self.seconds if self.seconds else 0.0


class LoadReport(BaseModel):
    """A whole load."""

    format: Literal["leyline-replay-load"] = "leyline-replay-load"
    version: Literal[1] = 1
    leyline: str
    config: LoadConfig
    machine: Machine
    seconds: float
    conversations: int
    points: list[Point]
    skipped: list[SkippedRecord]
    problems: list[str]


def points(concurrency: int, played: Mapping[Arm, Played]) -> list[Point]:
    """The arms of one concurrency, side by side."""
    made = totals.figures(_results(played))
    return [
        Point(
            concurrency=concurrency,
            arm=arm,
            figures=made[arm],
            calls=sum(len(run.rows) for run in one.runs),
            seconds=round(one.seconds, 3),
            ended=_ended(one),
        )
        for arm, one in played.items()
    ]


def problems(concurrency: int, played: Mapping[Arm, Played]) -> list[str]:
    """Policies that failed, arms that spliced nothing, conversations that broke off."""
    results = _results(played)
    found = totals.problems(results, totals.figures(results))
    for arm, one in played.items():
        for kind, count in _ended(one).items():
            why = next(run.ended.detail for run in one.runs if run.ended and run.ended.kind == kind)
            found.append(f"{arm.value}: {count} conversations ended with {kind}: {why}")
    return [f"concurrency {concurrency}: {one}" for one in found]


def _results(played: Mapping[Arm, Played]) -> totals.Results:
    number = len(next(iter(played.values())).runs)
    return [{arm: one.runs[at] for arm, one in played.items()} for at in range(number)]


def _ended(played: Played) -> dict[str, int]:
    kinds = [run.ended.kind for run in played.runs if run.ended]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
