"""Cases: one edit of one context, in tokens, with what the model is asked behind it.

An agent's harness may edit before its newest observation is prefilled, while the tool runs, or
after. Both orders start from the same tokens and differ in how many of them the engine holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from leyline_agent.directive import Directive, Mode, apply, kept_runs
from leyline_agent.edit import Edit
from leyline_agent.edit import apply as apply_edits
from leyline_agent.lowering import common_prefix, lower
from leyline_agent.message import Message

if TYPE_CHECKING:
    from leyline_agent.serving.render import ChatRenderer

__all__ = ["Case", "Kind", "Order", "make_case"]


class Order(str, Enum):
    """When the edit comes: before the newest observation is computed, or after."""

    EDIT_FIRST = "edit_first"
    EDIT_LAST = "edit_last"


class Kind(str, Enum):
    """What an edit does, or what is asked behind it."""

    STUB = "stub"
    DROP = "drop"
    BATCH = "batch"
    COPY = "copy"
    STALE = "stale"
    SECRET = "secret"

    @property
    def recorded(self) -> bool:
        """Whether it is an edit of a recorded run; the others are generated, with a question."""
        return self in (Kind.STUB, Kind.DROP, Kind.BATCH)


@dataclass(frozen=True)
class Case:
    """One edit.

    Attributes:
        key: names it, for resuming.
        cluster: the trajectory it belongs to; cases of one are not independent.
        kind: of the edit.
        unedited: the prompt without the edit.
        directives: the edit, in places of `unedited`; AMORTIZE all of them.
        held: how many leading tokens of `unedited` the engine holds when the edit comes.
        continuation: the tokens behind the prompt at which predictions are compared.
        asked: further continuations, by name, whose log probabilities are compared.
    """

    key: str
    cluster: str
    kind: Kind
    unedited: tuple[int, ...]
    directives: tuple[Directive, ...]
    held: Mapping[Order, int]
    continuation: tuple[int, ...]
    asked: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def edited(self) -> list[int]:
        """The prompt with the edit."""
        return apply(self.unedited, self.directives)

    @property
    def start(self) -> int:
        """Where the first change is."""
        return self.directives[0].start

    @property
    def suffix(self) -> int:
        """Tokens behind the first edit that are kept when the edit comes first."""
        return self.kept(Order.EDIT_FIRST)

    def kept(self, order: Order) -> int:
        """Tokens behind the first edit that the engine holds and keeps."""
        runs = kept_runs(self.directives, self.held[order])
        return sum(run.end - run.start for run in runs if run.start >= self.directives[0].end)


def make_case(
    chat: ChatRenderer,
    key: str,
    cluster: str,
    kind: Kind,
    messages: Sequence[Message],
    edits: Sequence[Edit],
    reply: Message,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    at_most: int,
    asked: Mapping[str, Message] | None = None,
) -> Case | None:
    """A case out of messages whose last one is the newest observation.

    Args:
        chat: renders.
        key: as in `Case`.
        cluster: likewise.
        kind: likewise.
        messages: what the reply answered.
        edits: of messages before the last one.
        reply: what the model said, or should say.
        tools: declared tools.
        at_most: tokens of the continuations.
        asked: other replies.

    Returns:
        None where the template leaves no such case: the edit changes nothing, or text elsewhere.
    """
    unedited = chat.render(messages, tools)
    first = common_prefix(unedited, chat.render(messages[:-1], tools))
    turn: Message = {"role": "user", "content": "x"}
    last = common_prefix(unedited, chat.render([*messages, turn], tools))
    lowered = lower(unedited[:first], messages, edits, chat, tools=tools)
    directives = tuple(d._replace(mode=Mode.AMORTIZE) for d in lowered.directives)
    if not directives or directives[-1].end >= first or first > last:
        return None
    if any(item.directive.mode is Mode.FORGET for item in lowered.items):
        return None
    if apply(unedited, directives) != chat.render(apply_edits(edits, messages), tools):
        return None
    replies = {"": reply, **(asked or {})}
    behind = {
        name: _continuation(chat, messages, one, tools, unedited)[:at_most]
        for name, one in replies.items()
    }
    if not all(behind.values()):
        return None
    return Case(
        key=key,
        cluster=cluster,
        kind=kind,
        unedited=tuple(unedited),
        directives=directives,
        held={Order.EDIT_FIRST: first, Order.EDIT_LAST: last},
        continuation=behind.pop(""),
        asked=behind,
    )


def _continuation(
    chat: ChatRenderer,
    messages: Sequence[Message],
    reply: Message,
    tools: Sequence[Mapping[str, Any]],
    prompt: Sequence[int],
) -> tuple[int, ...]:
    """A reply's tokens as the model would have sampled them; none where they merge with others."""
    whole = chat.render([*messages, reply], tools)
    if whole[: len(prompt)] != list(prompt):
        return ()
    behind = whole[len(prompt) :]
    stop = next((i for i, token in enumerate(behind) if token in chat.stop_ids), len(behind))
    return tuple(behind[:stop])
