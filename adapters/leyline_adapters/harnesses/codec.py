"""Codecs: how a framework's messages read as chat messages, and how edited ones are written back.

A session reads and writes OpenAI-chat dictionaries. What of them it leaves alone comes back as the
very dictionary it was given, so each maps back to the native object it was read from; only what
an edit put there is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from leyline_agent.errors import AdapterError
from leyline_agent.message import Message, calls

__all__ = ["Codec", "Completion", "completion", "missing", "restored"]

N = TypeVar("N")

Completion = Mapping[str, Any]
"""An OpenAI chat completion: what a session reads of a reply."""


class Codec(Protocol[N]):
    """How a framework's messages read as chat messages. One native object is one message.

    A framework whose objects hold several messages, or that says one message in several objects,
    takes them apart, or together, before and after.
    """

    def read(self, native: N) -> Message:
        """The chat message, made anew."""
        ...

    def edited(self, native: N, message: Message) -> N:
        """A copy of the native object with the content, and the calls, of an edited message."""
        ...

    def made(self, message: Message) -> N:
        """A native object for a message that stands for no native one."""
        ...


def completion(message: Message, usage: Mapping[str, Any] | None, **extra: Any) -> Completion:
    """A chat completion of one reply; `usage` in OpenAI's chat words, or None."""
    made = {"choices": [{"index": 0, "message": message}], **extra}
    return {**made, "usage": usage} if usage else made


def missing(extra: str, requirement: str, error: ImportError) -> AdapterError:
    """What to raise where a framework is not installed.

    Args:
        extra: the extra of this distribution that brings it.
        requirement: what the extra requires, for an environment that has the SDK already.
        error: what its import raised.
    """
    return AdapterError(
        f"{error}: pip install 'leyline-agent[{extra}]', or in an environment that has the SDK "
        f"pip install '{requirement}'"
    )


def restored(
    codec: Codec[N], natives: Sequence[N], read: Sequence[Message], sent: Sequence[Message]
) -> list[N]:
    """The native objects of an edited list of messages.

    Args:
        codec: the framework's.
        natives: what the framework passed, not edited.
        read: the chat message of each.
        sent: some of `read`, the same dictionaries, with what edits put between them.

    Returns:
        For each message sent: the native object itself where it was left alone; an edited copy
        of the one with the same calls, of the same call's result, or of the same role in its
        place; else a new one.
    """
    places = {id(message): place for place, message in enumerate(read)}
    callers: dict[tuple[str, ...], list[int]] = {}
    for place, message in enumerate(read):
        if key := _call_ids(message):
            callers.setdefault(key, []).append(place)
    kept = {id(message) for message in sent}
    result: list[N] = []
    behind = 0
    for message in sent:
        if id(message) in places:
            place = places[id(message)]
            result.append(natives[place])
            behind = place + 1
            continue
        if key := _call_ids(message):
            edited = next((one for one in callers.get(key, ()) if one >= behind), None)
        else:
            edited = behind if _may_be_of(message, read[behind : behind + 1], kept) else None
        if edited is None:
            result.append(codec.made(message))
        else:
            result.append(codec.edited(natives[edited], message))
            behind = edited + 1
    return result


def _may_be_of(message: Message, next_read: Sequence[Message], kept: set[int]) -> bool:
    """Whether a message without calls is the next one, edited: the same role, and it is gone."""
    return any(
        one.get("role") == message.get("role") and id(one) not in kept and not _call_ids(one)
        for one in next_read
    )


def _call_ids(message: Message) -> tuple[str, ...]:
    """What tells an edited message's original: its role and the ids of its calls; else nothing."""
    if message.get("tool_call_id"):
        return (str(message.get("role")), str(message["tool_call_id"]))
    ids = [str(call.get("id")) for call in calls(message)]
    return (str(message.get("role")), *ids) if ids else ()
