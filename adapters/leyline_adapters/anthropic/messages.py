"""Requests of Anthropic's Messages API as chat messages, and back by identity.

    conversation = to_chat(body)
    turn = session.begin(conversation.messages, conversation.tools)
    sent = conversation.restored(turn.request["messages"], turn.request.get("tools"))

Anthropic puts the results of several tools and what the user says besides into one message, and
what the model thinks, says and calls into another. As chat each result is a message of its own.
What comes back unedited gives the caller's own messages and blocks, thinking and cache breakpoints
included; what was edited gives new ones that the API takes: a call's results in the very next
message, no empty text, no neighbours of one role where an edit made them neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from leyline_adapters.anthropic.blocks import (
    Placed,
    blocks_of,
    content_of,
    edited,
    kind,
    made,
    readable,
)
from leyline_adapters.anthropic.breakpoints import Part, carry
from leyline_agent.message import Message, calls
from leyline_agent.readers.anthropic_messages import openai_tools
from leyline_agent.readers.chat import traced
from leyline_agent.readers.fields import items, mappings

__all__ = ["Conversation", "to_chat"]

PLACEHOLDER = "[earlier messages were removed]"
"""Stands where the API wants a user's message first and an edit removed it."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A chat message and the caller's blocks it was made of.

    Attributes:
        index: its place among the chat messages.
        message: the chat message.
        place: the caller's message.
        blocks: indices of its blocks.
    """

    index: int
    message: Message
    place: int
    blocks: tuple[int, ...]


class Conversation:
    """A request's conversation as chat messages, and the way back.

    Attributes:
        messages: the chat messages, the system prompt first.
        tools: the tools as OpenAI specifications; None where the request has none.
    """

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._system = bool(body.get("system"))
        first = [{"role": "system", "content": body["system"]}] if self._system else []
        self._given: list[Any] = [*first, *items(body.get("messages"), "messages")]
        self._plain = [readable(message, f"messages[{i}]") for i, message in enumerate(self._given)]
        self._blocks = [blocks_of(message.get("content")) for message in self._given]
        self._sources = [
            _Source(index, message, place, blocks)
            for index, (message, place, blocks) in enumerate(traced(self._plain))
        ]
        self.messages: list[Message] = [source.message for source in self._sources]
        tools = body.get("tools")
        self._tools = None if tools is None else items(tools, "tools")
        self.tools = None if self._tools is None else _specifications(self._tools)
        self._by_id = {id(source.message): source for source in self._sources}
        self._by_call = {
            (source.message["role"], call): source
            for source in reversed(self._sources)
            for call in _ids(source.message)
        }

    def restored(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The request with what `messages` and `tools` became. The caller's body stays as it is.

        Args:
            messages: unedited ones are the very objects of `messages`.
            tools: likewise; None for the caller's own.
        """
        parts = list(self._parts(messages))
        carry(self._blocks, parts)
        head = [part for part in parts if self._is_system(part)]
        body = {**self._body, "messages": self._joined([p for p in parts if p not in head])}
        if not all(part.whole for part in head):
            body["system"] = content_of([block for part in head for _, block in part.blocks])
        elif self._system and not head:
            del body["system"]
        if tools is not None:
            body["tools"] = self._restored_tools(tools)
        return body

    def _is_system(self, part: Part) -> bool:
        return part.role == "system" and (part.place is None or (self._system and part.place == 0))

    def _parts(self, messages: Sequence[Message]) -> Iterator[Part]:
        taken = {id(message) for message in messages}
        index, opening = -1, True
        for message in messages:
            role = str(message.get("role"))
            opening = opening and role in ("system", "developer")
            source = self._by_id.get(id(message)) or self._source(message, index, taken)
            if source is None:
                new = role if role == "assistant" else "system" if opening else "user"
                yield Part(new, None, [(None, block) for block in made(message)])
                continue
            index = source.index
            taken.add(id(source.message))
            own = self._blocks[source.place]
            whole = source.message == message
            blocks: list[Placed] = (
                [(i, own[i]) for i in source.blocks]
                if whole
                else edited(source.message, message, source.blocks, own)
            )
            yield Part(str(self._plain[source.place]["role"]), source.place, blocks, whole)

    def _source(self, message: Message, before: int, taken: set[int]) -> _Source | None:
        """What an edited message was: the one with its calls, else the one at its place."""
        role = str(message.get("role"))
        found = next((self._by_call.get((role, call)) for call in _ids(message)), None)
        if not _ids(message) and before + 1 < len(self._sources):
            found = self._sources[before + 1]
            if found.message["role"] != role or _ids(found.message):
                return None
        return None if found is None or id(found.message) in taken else found

    def _joined(self, parts: Sequence[Part]) -> list[Any]:
        """Messages of the parts; neighbours of one role become one, unless they always were two."""
        joined: list[Part] = []
        for place, group in groupby(
            (p for p in parts if p.blocks or p.whole), key=lambda part: part.place
        ):
            for part in group if place is None else [_gathered(list(group))]:
                if joined and joined[-1].role == part.role and not _neighbours(joined[-1], part):
                    joined[-1] = _merged(joined[-1], part)
                else:
                    joined.append(part)
        result = [self._message(part) for part in joined]
        opened = [message["role"] for message in self._given[self._system :][:1]]
        if joined and joined[0].role == "assistant" and opened != ["assistant"]:
            result.insert(0, {"role": "user", "content": PLACEHOLDER})
        return result

    def _message(self, part: Part) -> Any:
        if part.whole and len(part.blocks) == len(self._blocks[part.place or 0]):
            return self._given[part.place or 0]
        return {"role": part.role, "content": content_of([block for _, block in part.blocks])}

    def _restored_tools(self, tools: Sequence[Mapping[str, Any]]) -> list[Any]:
        own = {id(tool): i for i, tool in enumerate(self.tools or ())}
        given = self._tools or []
        return [given[own[id(t)]] if id(t) in own else _tool(t) for t in tools]


def to_chat(body: Mapping[str, Any]) -> Conversation:
    """The conversation of a Messages request as chat messages.

    Args:
        body: `messages`, and `system` and `tools` where there are any. Blocks may be objects of
            the anthropic package.

    Raises:
        TrajectoryError: something in it is no message or no block, with its place.
    """
    return Conversation(body)


def _ids(message: Message) -> list[str]:
    """The calls a message makes, or the one it answers."""
    if message.get("role") == "tool":
        return [str(message.get("tool_call_id"))]
    return [str(call.get("id")) for call in calls(message)]


def _gathered(parts: Sequence[Part]) -> Part:
    """Parts of one message as one."""
    blocks = [block for part in parts for block in part.blocks]
    return Part(parts[0].role, parts[0].place, blocks, all(part.whole for part in parts))


def _neighbours(before: Part, part: Part) -> bool:
    """Whether the caller has put these messages behind one another."""
    return before.place is not None and before.place + 1 == part.place


def _merged(before: Part, part: Part) -> Part:
    """Two messages as one; the API wants results first."""
    blocks = [*before.blocks, *part.blocks]
    blocks.sort(key=lambda placed: kind(placed[1]) != "tool_result")
    return Part(part.role, part.place, blocks)


def _specifications(tools: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(tool) for tool in openai_tools(mappings(tools, "tools"))]


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Anthropic's specification of an OpenAI tool."""
    function = tool["function"]
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    described = {k: function[k] for k in ("name", "description") if function.get(k)}
    return {**described, "input_schema": schema}
