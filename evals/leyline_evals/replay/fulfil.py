"""Who answers the questions of policies in a replay: nobody, unless told."""

from __future__ import annotations

from leyline_agent.asking import by_litellm
from leyline_agent.question import Answered, Ask, AtOnce, Fulfil, at_once
from leyline_agent.testing import extract
from leyline_agent.turn import Turn
from leyline_evals.replay.errors import ReplayError

__all__ = ["FULFILLERS", "NOBODY", "check_asks", "fulfiller"]

FULFILLERS: dict[str, Fulfil] = {"extract": extract, "litellm": by_litellm}


def fulfiller(name: str) -> AtOnce:
    """Answers the questions of one run, each once for all arms; a turn waits for it.

    Raises:
        ReplayError: there is none of that name.
    """
    if not name:
        return NOBODY
    if name not in FULFILLERS:
        raise ReplayError(f"--fulfil {name!r}: it is one of {', '.join(FULFILLERS)}")
    return at_once(_Remembering(FULFILLERS[name]))


class _Remembering:
    def __init__(self, fulfil: Fulfil) -> None:
        self._fulfil = fulfil
        self._known: dict[str, Answered | str] = {}

    def __call__(self, ask: Ask) -> Answered | str:
        if ask.key not in self._known:
            self._known[ask.key] = self._fulfil(ask)
        return self._known[ask.key]


def _nobody(ask: Ask) -> str:
    raise ReplayError("nobody answers in this replay")


NOBODY = at_once(_nobody)
"""Answers nothing: a run whose policy asks ends in an error that says what to do."""


def check_asks(turn: Turn, fulfil: AtOnce) -> None:
    """That somebody answers what the turn's policies ask.

    Raises:
        ReplayError: nobody does.
    """
    if turn.asks and fulfil is NOBODY:
        raise ReplayError(
            f"policy {turn.asks[0].policy} wants a model asked, and a replay asks none unless "
            "told: --fulfil extract answers with the beginnings of what was asked about, "
            "--fulfil litellm asks"
        )
