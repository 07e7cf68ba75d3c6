"""Instances, models that say what a test has them say, and the environment where there is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from swe_bench_rows import shipped

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel
from leyline_agent.testing.model import Reply
from leyline_evals.solve.driver import Limits, Outcome, StepRecord
from leyline_evals.solve.episode import EpisodeModel
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.tally import Heard
from leyline_evals.swe_bench import environment
from leyline_evals.swe_bench.driver import SweBench
from leyline_evals.swe_bench.instances import Instance

POLICY = "truncate_older_than:n=1,max_chars=40"


@pytest.fixture(scope="session")
def python() -> Path:
    """The environment's interpreter; `leyline eval setup swe-bench` makes it."""
    try:
        return environment.python()
    except EvalError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def drivers(python: Path) -> Iterator[Callable[..., SweBench]]:
    """Drivers by their options; each is made once."""
    made: dict[str, SweBench] = {}

    def get(**options: Any) -> SweBench:
        key = json.dumps(options, sort_keys=True)
        return made.setdefault(key, made[key] if key in made else SweBench(**options))

    yield get
    for driver in made.values():
        driver.close()


Episode = Callable[..., tuple[Outcome, list[StepRecord], DeterministicModel]]


@pytest.fixture
def episode(drivers: Callable[..., SweBench], tmp_path: Path) -> Episode:
    """Runs an episode in which the model asks for commands, or says replies."""

    def run(
        *said: str,
        replies: Sequence[Reply] = (),
        instance: dict[str, Any] | None = None,
        limits: Limits | None = None,
        folder: Path | None = None,
        **options: Any,
    ) -> tuple[Outcome, list[StepRecord], DeterministicModel]:
        driver = drivers(**{"talk": "text", **options})
        one = Instance.model_validate(instance or shipped())
        task = driver.tasks(())[0].model_copy(update={"id": one.instance_id, "payload": one.row()})
        model = DeterministicModel(*replies, *driver._speech.say(said), repeat=True)
        session = leyline.Session(policies=POLICY, observations=driver.observations)
        limits = limits or Limits(steps=12)
        asked = EpisodeModel(session, lambda request: Heard(model.complete(request)), limits)
        steps: list[StepRecord] = []
        place = folder or tmp_path / "episode"
        place.mkdir(exist_ok=True)
        outcome = driver.run(task, 1, asked, limits, place, steps.append)
        return outcome, steps, model

    return run
