"""What a run is: written down whole before its first episode, and never changed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyline_evals.solve.arms import SolveArm
from leyline_evals.solve.backend import ModelConfig
from leyline_evals.solve.driver import Limits, Task
from leyline_evals.solve.policy_files import PolicyFile

__all__ = ["Cell", "DriverConfig", "Registration", "RunConfig", "TaskConfig", "cells", "digest_of"]


class Registration(BaseModel):
    """The primary comparison, as it will be tested. Everything else is secondary.

    Attributes:
        first, second: arms; the difference is second - first.
        alpha: the level of the test.
        rate: the solve rate expected, for the difference that can be seen.
        icc: how alike episodes of one task are expected to be, from 0 to 1.
        rise, fall: the smallest of either found with a chance of `power`; None for none at all.
        detectable: the smaller of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: str
    second: str
    alpha: float = Field(0.05, gt=0, lt=1)
    power: float = Field(0.8, gt=0, lt=1)
    rate: float = Field(0.5, gt=0, lt=1)
    icc: float = Field(0.3, ge=0, lt=1)
    rise: float | None = None
    fall: float | None = None
    detectable: float | None = None
    measure: Literal["solved"] = "solved"
    test: str = "exact permutation of the arms within tasks, seeds clustered, two-sided"
    beside: str = "exact McNemar on task majorities; cluster bootstrap interval of the difference"
    secondary: str = "the same test of every other pair of arms, Holm-corrected"
    excluded: str = "pairs of episodes of which either ended in an error"
    due: str = "when every planned episode is done"


class DriverConfig(BaseModel):
    """The benchmark: the command's name and what its driver was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class TaskConfig(BaseModel):
    """A task as the run knows it; the digest is of all that its driver is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    group: str = ""
    digest: str

    @classmethod
    def of(cls, task: Task) -> TaskConfig:
        """What is written down of a task."""
        return cls(id=task.id, group=task.group, digest=digest_of(task))


class RunConfig(BaseModel):
    """A run.

    Attributes:
        driver: the benchmark.
        tasks, arms, seeds: an episode for each of all three.
        model, limits: the same for every episode.
        order: draws the order of the tasks.
        registration: the primary comparison; None for a run of one arm.
        policy_files: those that the arms' policies stand in, with digests of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    driver: DriverConfig
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    arms: tuple[SolveArm, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field(min_length=1)
    model: ModelConfig
    limits: Limits = Limits()
    order: int = 0
    registration: Registration | None = None
    policy_files: tuple[PolicyFile, ...] = ()

    @model_validator(mode="after")
    def _is_a_plan(self) -> RunConfig:
        for what, names in (
            ("task", [task.id for task in self.tasks]),
            ("arm", [arm.name for arm in self.arms]),
            ("seed", [str(seed) for seed in self.seeds]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} stands in the plan twice")
        return self

    @property
    def digest(self) -> str:
        """What names this config: any change of it is another run."""
        return digest_of(self)

    @property
    def size(self) -> int:
        """How many episodes it has."""
        return len(self.tasks) * len(self.arms) * len(self.seeds)


class Cell(NamedTuple):
    """One episode of the plan."""

    task: str
    arm: SolveArm
    seed: int


def cells(config: RunConfig) -> Iterator[Cell]:
    """The plan: seed by seed over all tasks, the arms of a task one after the other.

    Which arm is first rotates, so that whatever the machine does besides hits all alike, and a run
    that is stopped early has whole pairs.
    """
    draw = random.Random(config.order)
    for turn, seed in enumerate(config.seeds):
        tasks = [task.id for task in config.tasks]
        draw.shuffle(tasks)
        for place, task in enumerate(tasks):
            for arm in _rotated(config.arms, turn + place):
                yield Cell(task, arm, seed)


def digest_of(value: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of a model's JSON, or of what was read of it, with sorted keys."""
    found = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(found, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _rotated(arms: Sequence[SolveArm], by: int) -> list[SolveArm]:
    by %= len(arms)
    return [*arms[by:], *arms[:by]]
