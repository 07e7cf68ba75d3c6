"""Playing one recorded run in several arms, side by side.

The arms take turns at every model call, in rotating order, so that what the machine does besides
hits all of them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from leyline_agent.policy import Policy
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.fidelity import Judge
from leyline_evals.replay.fulfil import fulfiller
from leyline_evals.replay.player import Player
from leyline_evals.replay.records import ArmRun
from leyline_evals.replay.workload import Run

__all__ = ["OnTurn", "play"]

OnTurn = Callable[[int, int], None]
"""Called after every turn with its number, from 1, and how many there are."""


def play(
    run: Run,
    arms: Sequence[Arm],
    policy: Policy,
    engines: Engines,
    *,
    max_turns: int | None = None,
    fidelity_turns: int = 0,
    fulfil: str = "",
    on_turn: OnTurn | None = None,
) -> list[ArmRun]:
    """Replay a run in every arm, each over an engine of its own.

    Raises:
        ReplayError: the policy wants a model asked, and `fulfil` names nobody.
    """
    places, answering = run.turns[:max_turns], fulfiller(fulfil)
    players = [Player(run, arm, policy, engines.fresh(), answering) for arm in arms]
    judge: Judge | None = None
    if fidelity_turns:
        judge = Judge(run, places, policy, engines, fidelity_turns, answering)
    for number, index in enumerate(places):
        going = [player for player in _rotated(players, number) if player.ended is None]
        if not going:
            break
        for player in going:
            _turn(player, index, judge)
        if on_turn is not None:
            on_turn(number + 1, len(places))
    return [player.result(len(places)) for player in players]


def _turn(player: Player, index: int, judge: Judge | None) -> None:
    judged = judge is not None and index in judge.places and player.arm.edits
    logits = player.turn(index, score=judged)
    if judge is not None and judged and logits is not None:
        player.fidelity.append(judge.row(len(player.rows), index, player.sent, logits))


def _rotated(players: Sequence[Player], by: int) -> list[Player]:
    by %= len(players)
    return [*players[by:], *players[:by]]
