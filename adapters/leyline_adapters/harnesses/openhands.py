"""OpenHands SDK 1.x: a condenser whose view is the edited one, call by call.

    agent = Agent(llm=llm, tools=tools, condenser=LeylineCondenser(policies="keep_last:n=5"))

The conversation's events stay the full record. A `Condensation` would be one of them: it forgets
events for good, cannot shorten one, and costs a step of its own; so none is made here. Condensers
that make them go in front of this one in a `PipelineCondenser`.

A condenser sees requests and never replies. It reads the usage of a call off the LLM's metrics at
the next one, so a turn is committed late; `settle` commits the last. For engines that splice let
the LLM's `base_url` name a `leyline proxy`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import PrivateAttr, field_serializer

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, missing
from leyline_agent.message import Message, called, calls
from leyline_agent.policy import PolicyLike, as_policy
from leyline_agent.settings import SessionOptions
from leyline_agent.wrapping.settings import Wrapped

try:
    from openhands.sdk.context.condenser.base import PipelinableCondenserBase
    from openhands.sdk.event import ActionEvent, LLMConvertibleEvent
    from openhands.sdk.llm import ImageContent, TextContent
    from openhands.sdk.llm import Message as NativeMessage
except ImportError as error:
    raise missing("openhands", "openhands-sdk>=1.50,<2", error) from error

__all__ = ["LeylineCondenser"]

MAX_OPEN = 16
"""Conversations whose last turn may wait for its usage; the one begun first is settled first."""

Group = tuple[Any, ...]
"""The events that OpenHands sends as one message."""


class EditedEvent(LLMConvertibleEvent):
    """What an edit shows in the place of events. Never part of the conversation."""

    source: Any = "environment"
    llm_message: NativeMessage

    def to_llm_message(self) -> Any:
        """The message the model reads."""
        return self.llm_message


class LeylineCondenser(PipelinableCondenserBase):
    """Policies over a conversation's view.

    OpenHands keeps an agent on disk, condenser included: the policies as text, and of the options
    those that are text or numbers.

    Args:
        policies: as for `leyline.Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of the sessions (`SessionOptions`), here or by name.

    Attributes:
        leyline: the last `sessions`, and in `bypassed` the requests that went out unedited.

    Raises:
        LeylineError: a setting does not fit.
    """

    policies: str
    journal: str | None = None
    options: dict[str, Any] = {}

    _harness: Any = PrivateAttr()
    _open: dict[str, _Open] = PrivateAttr(default_factory=dict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(
        self,
        policies: PolicyLike | None = None,
        journal: str | os.PathLike[str] | None = None,
        options: Mapping[str, Any] | None = None,
        **named: Any,
    ) -> None:
        policy = as_policy([] if policies is None else policies)
        folder = None if journal is None else os.fspath(journal)
        named.pop("kind", None)  # OpenHands' own, where it reads an agent from disk.
        given = SessionOptions(**{**(options or {}), **named})  # type: ignore[typeddict-item]
        super().__init__(policies=str(policy), journal=folder, options=given)
        self._harness = Harness(
            "openhands", _Codec(), policy, None, folder, given, makes_calls=False
        )

    @field_serializer("options")
    def _kept(self, options: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in options.items() if isinstance(v, str | int | float | bool)}

    def __deepcopy__(self, memo: Any = None) -> LeylineCondenser:
        copied: LeylineCondenser = (
            self.model_copy()
        )  # The same sessions: histories tell them apart.
        return copied

    @property
    def leyline(self) -> Wrapped:
        """The last `sessions`, and in `bypassed` the requests that went out unedited."""
        found: Wrapped = self._harness.leyline
        return found

    def condense(self, view: Any, agent_llm: Any = None) -> Any:
        """The view to send in the place of `view`, which stays as it is."""
        if not view.events:
            return view
        conversation = str(view.events[0].id)
        self._settle(conversation)
        turn = self._harness.begin(list(_groups(view.events)), key=conversation)
        with self._lock:
            self._open[conversation] = _Open(turn, agent_llm, _num_usages(agent_llm))
            oldest = next(iter(self._open)) if len(self._open) > MAX_OPEN else ""
        self._settle(oldest)
        shown = [event for group in turn.messages for event in group]
        return view.model_copy(update={"events": shown})

    async def acondense(self, view: Any, agent_llm: Any = None) -> Any:
        """`condense`, without blocking the event loop."""
        return await asyncio.to_thread(self.condense, view, agent_llm)

    def settle(self) -> None:
        """Commit the last turn of every conversation, with the usage that its LLM has counted."""
        with self._lock:
            conversations = list(self._open)
        for conversation in conversations:
            self._settle(conversation)

    def _settle(self, conversation: str) -> None:
        with self._lock:
            left = self._open.pop(conversation, None)
        if left is None:
            return
        if left.failed:
            left.turn.failed("no usage was counted for the call")
        else:
            left.turn.answered(left.answer)


@dataclass
class _Open:
    """A turn whose reply the condenser does not see.

    Attributes:
        turn: the turn.
        llm: the agent's; its metrics tell what the call cost.
        num_usages: how many calls it had counted before this one.
    """

    turn: NativeTurn[Group]
    llm: Any
    num_usages: int

    @property
    def failed(self) -> bool:
        """Whether an LLM that counts its calls has not counted this one."""
        return 0 < _num_usages(self.llm) <= self.num_usages

    @property
    def answer(self) -> Completion | None:
        """A completion without a reply, but with the call's usage; None where none is counted."""
        if _num_usages(self.llm) <= self.num_usages:
            return None
        counted = self.llm.metrics.token_usages[self.num_usages]
        usage = {
            "prompt_tokens": counted.prompt_tokens,
            "completion_tokens": counted.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": counted.cache_read_tokens},
        }
        return {"choices": [], "usage": usage}


def _num_usages(llm: Any) -> int:
    return len(llm.metrics.token_usages) if llm is not None else 0


def _groups(events: Sequence[Any]) -> Iterator[Group]:
    """The events of each message: the calls of one reply are sent together."""
    group: list[Any] = []
    for event in events:
        if group and not _belongs(event, group[-1]):
            yield tuple(group)
            group = []
        group.append(event)
    yield tuple(group)


def _belongs(event: Any, before: Any) -> bool:
    both = isinstance(event, ActionEvent) and isinstance(before, ActionEvent)
    return both and event.llm_response_id == before.llm_response_id


class _Codec:
    def read(self, native: Group) -> Message:
        said = _message(native)
        message: Message = {"role": said.role, "content": _content(said.content)}
        if said.tool_calls:
            message["tool_calls"] = [call.to_chat_dict() for call in said.tool_calls]
        if said.tool_call_id is not None:
            message |= {"tool_call_id": said.tool_call_id, "name": said.name}
        return message

    def edited(self, native: Group, message: Message) -> Group:
        said = _message(native)
        update: dict[str, Any] = {"content": _native_content(message.get("content"))}
        if said.tool_calls:
            arguments = {call.get("id"): called(call)[1] for call in calls(message)}
            update["tool_calls"] = [
                call.model_copy(update={"arguments": arguments[call.id]})
                for call in said.tool_calls
                if call.id in arguments
            ] or None
        return (EditedEvent(llm_message=said.model_copy(update=update)),)

    def made(self, message: Message) -> Group:
        said = NativeMessage(role=message["role"], content=_native_content(message.get("content")))
        return (EditedEvent(llm_message=said),)


def _message(group: Group) -> Any:
    return LLMConvertibleEvent.events_to_messages(list(group))[0]


def _content(parts: Sequence[Any]) -> Any:
    if len(parts) == 1 and isinstance(parts[0], TextContent):
        return parts[0].text
    return [part for content in parts for part in content.to_llm_dict()]


def _native_content(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [TextContent(text=content)]
    return [
        ImageContent(image_urls=[part["image_url"]["url"]])
        if part.get("type") == "image_url"
        else TextContent(text=str(part.get("text", "")))
        for part in content or ()
    ]
