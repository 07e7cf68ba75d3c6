"""Episodes of scripts, with a session in front of them as in a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leyline_agent.session import Session
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.testing.model import Reply
from leyline_evals.debug_gym.driver import DebugGym
from leyline_evals.solve.driver import Limits, Outcome, StepRecord
from leyline_evals.solve.episode import EpisodeModel
from leyline_evals.solve.tally import Heard


class Run:
    """Runs one task of a driver with a script.

    Attributes:
        steps: what was written down.
        seen: what answered the replies, as the model saw it last.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.steps: list[StepRecord] = []
        self.seen: list[str] = []

    def __call__(self, driver: DebugGym, script: Sequence[Reply], **limits: float) -> Outcome:
        adapter = MockAdapter(DeterministicModel(*script, *[""] * 100))
        session = Session(adapter=adapter, observations=driver.observations)
        held = Limits(**{"steps": len(script) + 2, "step_seconds": 20.0, **limits})  # type: ignore[arg-type]
        model = EpisodeModel(session, lambda request: Heard(adapter.complete(request)), held)
        (task,) = driver.tasks(())
        self.folder.mkdir(exist_ok=True)
        try:
            return driver.run(task, 1, model, held, self.folder, self.steps.append)
        finally:
            self.seen = [str(message.get("content")) for message in session.history][2:]
