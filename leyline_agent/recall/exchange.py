"""What a reply that calls the recall tool becomes.

[..., call]                 calls nothing else: hidden. The history ends before it, the view
                            has the call and its results; the model is asked again
[..., call + other calls]   the harness gets the reply without the recall; the view has it
                            whole, with the recall's results beside those of the others
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from leyline_agent.view import Record

__all__ = ["NAME", "POLICY", "Exchange", "Recalled", "Recalls", "Spent"]

NAME = "leyline_recall"
"""The tool's name."""

POLICY = "recall"
"""Under whose name recalls stand among the edits of a view."""


class Recalled(NamedTuple):
    """One call of the recall tool, answered.

    Attributes:
        id: what was asked for; "" where the arguments could not be read.
        found: whether the answer shows it.
        again: whether it was shown before in this session.
        policy: whose edit had cut it.
    """

    id: str
    found: bool
    again: bool = False
    policy: str = ""


@dataclass(frozen=True)
class Exchange:
    """A call of the recall tool and its results, as they stand in the view.

    Attributes:
        reply: the model's whole reply.
        results: the answers, in the order of the calls.
        recalled: what they say.
    """

    reply: Record
    results: tuple[Record, ...]
    recalled: tuple[Recalled, ...] = ()


@dataclass
class Recalls:
    """What a session knows of its recalls, and a journal can tell again.

    Attributes:
        key: under which the archive keeps the session's contents.
        on: whether the tool is declared; None before the first call.
        shown: ids shown so far.
        recalls: how often an output was shown.
        repeated: how often one was shown that had been shown before.
        hidden: calls of the model that the harness saw nothing of.
    """

    key: str = ""
    on: bool | None = None
    shown: set[str] = field(default_factory=set)
    recalls: int = 0
    repeated: int = 0
    hidden: int = 0

    def add(self, exchange: Exchange, *, hidden: bool) -> None:
        """Count an exchange."""
        found = [one for one in exchange.recalled if one.found]
        self.shown.update(one.id for one in found)
        self.recalls += len(found)
        self.repeated += sum(one.again for one in found)
        self.hidden += hidden


@dataclass
class Spent:
    """What a turn has spent on recalls so far.

    Attributes:
        recalls: calls answered with an output or with why there is none.
        refused: replies answered with nothing but that the bound is reached.
        usages: the usage of each hidden call.
    """

    recalls: int = 0
    refused: int = 0
    usages: list[dict[str, Any]] = field(default_factory=list)
