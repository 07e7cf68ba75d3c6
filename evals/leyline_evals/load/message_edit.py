"""The message-edit workload: long conversations of which one message is rewritten every turn.

After the synthetic replay of arXiv 2606.01065: 16 sessions of 6 turns, a system prompt of 4,000
tokens that all of them share, some 2,000 tokens a turn. Which message its edits hit is not told
there; here every message of a turn but the newest has the same chance.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leyline_agent import options
from leyline_agent.edit import Edit
from leyline_agent.errors import PolicyError
from leyline_agent.message import Message, text
from leyline_agent.policy import Policy
from leyline_agent.readers import Recording
from leyline_agent.testing import tool_call
from leyline_agent.trajectory import Trajectory
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.workload import Run

__all__ = ["EditOneMessage", "MessageEdit", "parse_workload"]

NAME = "message_edit"

# Common words: nearly every tokenizer has one token for each of them with its space.
_WORDS = (
    "about after again all always another any around back because before being best better big "
    "black both bring but call came can change close come could day did does done down each end "
    "even every far few find first for found from get give good great hand hard has have head "
    "help here high him his home house how just keep kind know large last late left less life "
    "light like line list little live long look made make many may men might more most move much "
    "must name near need never new next night not now number off old only open order other our "
    "out over own part people place plan play point power put right run said same see set she "
    "should show side small some stand start state still story such take tell than that them "
    "then there these they thing think this those time turn two under until upon use very want "
    "was water way well went were what when where which while white who will with word work "
    "world would write year you young"
).split()
_A_LINE = 16


class MessageEdit(BaseModel):
    """The workload's sizes.

    Attributes:
        sessions: conversations.
        turns: model calls of each.
        system: tokens of the system prompt, about; the conversations share it.
        turn: tokens a turn adds, about: the task, then one tool result each.
        seed: of the words, and of which message is edited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sessions: int = Field(16, ge=1)
    turns: int = Field(6, ge=1)
    system: int = Field(4000, ge=1)
    turn: int = Field(2000, ge=1)
    seed: int = 0

    def __str__(self) -> str:
        return f"{NAME}:{','.join(f'{key}={value}' for key, value in self)}"

    def runs(self) -> Iterator[Run]:
        """The conversations, as if they had been recorded."""
        system = _words(random.Random(f"{self.seed} system"), self.system)
        for number in range(self.sessions):
            messages = tuple(self._messages(number, system))
            name = f"conversation-{number + 1}"
            yield Run(NAME, number, Recording(id=name, format=NAME, messages=messages))

    @property
    def policy(self) -> str:
        """What edits the conversations unless told, in its text form."""
        return f"{EditOneMessage.__module__}.{EditOneMessage.__name__}:seed={self.seed}"

    def _messages(self, number: int, system: str) -> Iterator[Message]:
        chance = random.Random(f"{self.seed} {number}")
        yield {"role": "system", "content": system}
        yield {"role": "user", "content": _words(chance, self.turn)}
        for turn in range(1, self.turns):
            call = f"case-{number}-{turn}"
            yield tool_call("look", id=call, page=turn)
            told = _words(chance, self.turn)
            yield {"role": "tool", "tool_call_id": call, "content": told}
        yield {"role": "assistant", "content": "Done."}


class EditOneMessage(Policy):
    """Rewrite one message a turn, the task or a result but the newest, at its own length."""

    may_edit: ClassVar = frozenset({"task"})

    seed: int = 0

    def edits(self, trajectory: Trajectory) -> Iterable[Edit]:
        """One edit a turn, from the second on."""
        results = trajectory.tool_results
        if not results:
            return
        tasks = [at for at, one in enumerate(trajectory.messages) if one["role"] == "user"]
        earlier = [*tasks[:1], *(result.index for result in results[:-1])]
        chance = random.Random(f"{self.seed} {results[-1].message.get('tool_call_id')}")
        index = chance.choice(earlier)
        old = trajectory.messages[index]
        new = {**old, "content": _words(chance, len(text(old).split()))}
        yield Edit(index, index + 1, (new,), reason="rewritten")


def parse_workload(spec: str) -> MessageEdit:
    """A workload from "message_edit:sessions=16,turns=6,...".

    Raises:
        ReplayError: there is no such workload, no such option, or a value it does not take.
    """
    name, _, rest = spec.partition(":")
    if name.strip() != NAME:
        raise ReplayError(f"no workload {name.strip()!r}; there is {NAME}: {MessageEdit()}")
    try:
        return MessageEdit.model_validate(options.pairs(rest, spec))
    except PolicyError as error:
        raise ReplayError(str(error)) from error
    except ValidationError as error:
        told = options.explain(NAME, MessageEdit.model_fields, error).removeprefix("policy ")
        raise ReplayError(f"--workload {told}; it is like {MessageEdit()}") from error


def _words(chance: random.Random, number: int) -> str:
    words = chance.choices(_WORDS, k=number)
    return "\n".join(
        " ".join(words[start : start + _A_LINE]) for start in range(0, number, _A_LINE)
    )
