"""Fidelity: what a splice changes in the model's predictions, against honest re-prefill.

Measured on the recorded reply, right behind a turn's edits, with two controls beside it: the
noise floor (honest once more, in another chunking) and the edit undone (the whole history).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leyline_agent.errors import ContextOverflow, EngineError
from leyline_agent.message import Message
from leyline_agent.policy import Policy
from leyline_agent.question import AtOnce
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.wire import ChatRequest
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.fulfil import NOBODY
from leyline_evals.replay.player import Player
from leyline_evals.replay.records import FidelityRow
from leyline_evals.replay.workload import Run

__all__ = ["Judge", "Nearness", "evenly", "nearness"]

_ROWS = 64


class Nearness(NamedTuple):
    """Means over a reply's tokens: KL(honest || other) in nats, and how often the top-1 agrees."""

    kl: float
    top1: float


class _Controls(NamedTuple):
    """What is measured once a turn: `honest` are log probabilities [reply tokens, vocab]."""

    place: int
    sent: Sequence[Message]
    honest: Tensor
    floor: Nearness
    unedited: Nearness | None


class Judge:
    """Compares arms with honest re-prefill at some edited turns of a run.

    Args:
        run: the run.
        places: of the replies that are played.
        policy: whose edits are looked for.
        engines: of the replay.
        at_most: measure at so many turns, evenly spread over those that edit something.
        fulfil: answers the policy's questions.

    Attributes:
        places: of the replies at which fidelity is measured.
    """

    def __init__(
        self,
        run: Run,
        places: Sequence[int],
        policy: Policy,
        engines: Engines,
        at_most: int,
        fulfil: AtOnce = NOBODY,
    ) -> None:
        self._run = run
        self._tools = list(run.recording.tools) or None
        self._honest = engines.fresh()
        self._rechunked = engines.rechunked()
        self._known: _Controls | None = None
        self._count = 0
        self.places = frozenset(evenly(_edited(run, places, policy, engines, fulfil), at_most))

    def row(self, turn: int, index: int, sent: Sequence[Message], logits: Tensor) -> FidelityRow:
        """How near `logits`, which predicted the reply at `index`, are to honest on `sent`."""
        known = self._known
        if known is None or known.place != index or known.sent != sent:
            known = self._known = self._controls(index, sent)
        here = nearness(known.honest, logits)
        return FidelityRow(
            turn=turn,
            tokens=len(logits),
            kl=here.kl,
            top1=here.top1,
            floor_kl=known.floor.kl,
            floor_top1=known.floor.top1,
            unedited_kl=known.unedited.kl if known.unedited else None,
            unedited_top1=known.unedited.top1 if known.unedited else None,
        )

    def _controls(self, index: int, sent: Sequence[Message]) -> _Controls:
        honest = torch.log_softmax(self._score(self._honest, sent, index), dim=-1)
        again = self._score(self._rechunked, sent, index)
        try:
            undone = self._score(self._honest, self._run.prompt(index), index)
        except ContextOverflow:
            unedited = None
        else:
            unedited = nearness(honest, undone)
        return _Controls(index, sent, honest, nearness(honest, again), unedited)

    def _score(self, service: ChatService, messages: Sequence[Message], index: int) -> Tensor:
        """Logits that predict the reply behind a plain prefill; a tenant of its own, no cache."""
        self._count += 1
        request = ChatRequest(messages=list(messages), tools=self._tools)
        reply = self._run.recording.messages[index]
        _, logits = service.recorded(request, reply, f"honest-{self._count}", score=True)
        if logits is None:
            raise EngineError("no model runs in this replay; it only counts tokens")
        return logits


def nearness(honest: Tensor, logits: Tensor) -> Nearness:
    """How near predictions are to honest ones.

    Args:
        honest: log probabilities [tokens, vocab].
        logits: [tokens, vocab].

    Raises:
        EngineError: the two are of different replies.
    """
    if honest.shape != logits.shape:
        raise EngineError(
            f"predictions of {len(logits)} tokens cannot be compared with those of {len(honest)}"
        )
    kl = agreeing = 0.0
    for start in range(0, len(honest), _ROWS):
        expected = honest[start : start + _ROWS]
        found = torch.log_softmax(logits[start : start + _ROWS].float(), dim=-1)
        kl += float((expected.exp() * (expected - found)).sum())
        agreeing += float((expected.argmax(-1) == found.argmax(-1)).sum())
    return Nearness(max(kl / len(honest), 0.0), agreeing / len(honest))


def evenly(values: Sequence[int], at_most: int) -> list[int]:
    """At most so many of the values, spread evenly, the first and the last among them."""
    if len(values) <= at_most:
        return list(values)
    if at_most == 1:
        return [values[len(values) // 2]]
    step = (len(values) - 1) / (at_most - 1)
    return [values[round(i * step)] for i in range(at_most)]


def _edited(
    run: Run, places: Sequence[int], policy: Policy, engines: Engines, fulfil: AtOnce
) -> list[int]:
    """Places of the replies whose edits leave a suffix, as far as the context holds the prompt."""
    player = Player(run, Arm.AMORTIZE, policy, engines.counting(), fulfil)
    found: list[int] = []
    for index in places:
        player.turn(index)
        if player.ended is not None:
            break
        row = player.rows[-1]
        if row.suffix and (engines.max_len is None or row.prompt < engines.max_len):
            found.append(index)
    return found
