"""What `leyline demo` shows: a recorded agent run, with and without splicing, on a real model.

The policy is the ten-line rule of the Leyline paper (arXiv 2606.01065), for it is short enough to
read before believing what it does. Five results stay whole rather than the paper's two: a splice
can only reuse what stands behind an edit, and that is as many turns.
"""

from __future__ import annotations

from leyline_agent.errors import LeylineError
from leyline_agent.serving.models.embedded import DEFAULT
from leyline_evals.demo.record import RECORDING
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.records import Config
from leyline_evals.replay.runner import Played, Progress, replay
from leyline_evals.replay.workload import Workload

__all__ = ["INTRODUCTION", "demo"]

POLICY = "truncate_older_than:n=5,max_chars=200"
ARMS = (Arm.APPEND_ONLY, Arm.PREFIX_CACHE, Arm.AMORTIZE, Arm.REPAIR)
TURNS = 22

INTRODUCTION = f"""\
A recorded agent mends a small program: {TURNS} calls of the model, each with all said before.
A policy cuts old tool results down to 200 characters, all but the last five. The calls are made
four times over: without the policy, with it on an ordinary prefix cache, and with it on an engine
that splices its cache (amortize, repair).
"""


def demo(progress: Progress | None = None, turns: int = TURNS) -> Played:
    """Replay the project's own recording with the embedded model.

    Raises:
        LeylineError: an arm that splices spliced nothing, so there is nothing to show.
    """
    config = Config(policy=POLICY, model=DEFAULT, max_turns=turns)
    engines = Engines.load(DEFAULT, tokens_only=False)
    played = replay(Workload([RECORDING]), config, engines, arms=ARMS, progress=progress)
    for arm, one in played.report.arms.items():
        if arm.splices and not one.spliced_tokens:
            raise LeylineError(
                f"{arm.value} spliced nothing in {one.edits} edits; `leyline doctor` may say why"
            )
    return played
