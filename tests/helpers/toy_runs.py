"""Runs of the toy benchmark in three arms."""

from typing import Any

from leyline_evals.solve.arms import Mechanism, arms_of
from leyline_evals.solve.backend import ModelConfig
from leyline_evals.solve.config import DriverConfig, Registration, RunConfig, TaskConfig
from leyline_evals.solve.driver import Limits
from leyline_evals.solve.toy import Sums

POLICY = "truncate_older_than:n=1,max_chars=50"


def config_of(driver: Sums, seeds: int = 2, **changes: Any) -> RunConfig:
    """The toy benchmark in three arms."""
    arms = arms_of([POLICY], [Mechanism.PLAIN, Mechanism.REPAIR])
    return RunConfig(
        driver=DriverConfig(name="sums", options=driver.options),
        tasks=tuple(TaskConfig.of(task) for task in driver.tasks(())),
        arms=arms,
        seeds=tuple(range(1, 1 + seeds)),
        model=ModelConfig(name="scripted"),
        limits=Limits(steps=10),
        registration=Registration(first=arms[0].name, second=arms[-1].name, detectable=0.5),
    ).model_copy(update=changes)
