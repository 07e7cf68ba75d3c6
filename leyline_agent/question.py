"""Questions: what a policy wants a model to be asked, and what came of it.

A policy does no IO. It yields an `Ask`; the session has it answered beside the agent, which never
waits for it, and from then on `trajectory.answers` holds the text under the question's key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from leyline_agent.message import Message

__all__ = ["Answered", "Ask", "AtOnce", "Fulfil", "at_once"]


@dataclass(frozen=True)
class Ask:
    """A question to a model.

    Yield it again every turn until `trajectory.answers` has the key: a session asks once, and again
    only where that failed.

    Attributes:
        key: the answer's name: a digest of what is asked, so that the same question is asked once.
        messages: what the model is sent, OpenAI style.
        model: which model, as litellm names it; "" leaves it to `fulfil`.
        max_tokens: how long the answer may be.
        max_chars: an answer that is longer counts as none; 0 for no limit.
        budget: tokens, read and written, after which the policy's questions are asked no more in
            this session.
        policy: who asks; filled in by the policy machinery.
    """

    key: str
    messages: tuple[Message, ...]
    model: str = ""
    max_tokens: int = 1000
    max_chars: int = 0
    budget: int = 1_000_000
    policy: str = ""


class Answered(NamedTuple):
    """An answer with what it cost.

    Attributes:
        text: what the model said.
        tokens: read and written; None where nobody counted.
    """

    text: str
    tokens: int | None = None


Fulfil: TypeAlias = Callable[[Ask], Answered | str]
"""Asks a model; called in a thread of its own. What it raises is the reason there is no answer."""


class AtOnce(NamedTuple):
    """A `Fulfil` that is called in the turn itself; see `at_once`."""

    fulfil: Fulfil


def at_once(fulfil: Fulfil) -> AtOnce:
    """Have questions answered in the turn that asks them, for tests and replays: it waits.

    The answer is there from the next turn on, as always.
    """
    return AtOnce(fulfil)
