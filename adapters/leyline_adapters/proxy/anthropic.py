"""Anthropic's Messages: chat messages for the session, Anthropic's own on the wire."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyline_adapters.anthropic.cleaning import Cleaning
from leyline_adapters.anthropic.messages import Conversation, to_chat
from leyline_adapters.anthropic.replies import Assembly, to_completion, to_message
from leyline_adapters.proxy.body import Body
from leyline_adapters.proxy.dialect import Telling, Unmanaged
from leyline_adapters.proxy.openai import RESERVED
from leyline_adapters.proxy.problems import Api
from leyline_adapters.proxy.streams import Event
from leyline_agent.adapter import Request
from leyline_agent.message import Message
from leyline_agent.recall.tool import with_notice
from leyline_agent.turn import Turn

__all__ = ["Messages"]


class Messages:
    """`/v1/messages`."""

    api: Api = "anthropic"
    adapter = "anthropic"

    def asked(self, body: Body) -> _Asked:
        """What a request asks for. Raises Unmanaged."""
        if "leyline" in body.values:
            raise Unmanaged("the request has a field leyline: somebody else manages its session")
        if not isinstance(body.values.get("messages"), list):
            raise Unmanaged("it has no list of messages")
        return _Asked(body, to_chat(body.values))

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """An answer as a chat completion; None when it is none."""
        return to_completion(body)

    def delivered(self, values: Mapping[str, Any], turn: Turn) -> Mapping[str, Any]:
        """An answer that finished a turn, without recalls and with the usage of all its calls."""
        whole = to_completion(values)
        told = turn.delivered(whole)
        if told is whole:
            return values
        message = to_message(told)
        left = {block["id"] for block in message["content"] if block["type"] == "tool_use"}
        content = [b for b in values["content"] if b.get("type") != "tool_use" or b["id"] in left]
        if not left and len(content) < len(values["content"]):
            content = with_notice(content)
        usage = {**(values.get("usage") or {}), **(told.get("usage") or {})}
        return {**values, "content": content, "stop_reason": message["stop_reason"], "usage": usage}

    def cleaned(self, delivery: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same for a stream's events; those of a recall are DROPPED."""
        return Cleaning(delivery)

    def stream(self) -> _Events:
        """For an answer that is streamed."""
        return _Events()


class _Asked:
    """A request; what no edit touched is the caller's own on the way back."""

    def __init__(self, body: Body, conversation: Conversation) -> None:
        self._body = body
        self._conversation = conversation
        self.messages: Sequence[Message] = conversation.messages
        self.tools: Sequence[Mapping[str, Any]] | None = conversation.tools
        self.rest = {k: v for k, v in body.values.items() if k not in RESERVED | {"system"}}

    def sent(self, request: Request) -> bytes:
        """The request to send."""
        chat = ("messages", "tools", "extra_body")
        given = {key: value for key, value in request.items() if key not in chat}
        restored = self._conversation.restored(request["messages"], request.get("tools"))
        return self._body.replaced({**restored, **given, **(request.get("extra_body") or {})})


class _Events(Telling):
    """A streamed answer."""

    _assembly: Assembly

    def __init__(self) -> None:
        super().__init__(Assembly())
        self._error = ""

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        return self._assembly.ended

    @property
    def error(self) -> str:
        """What went wrong on the way; "" when nothing did."""
        return self._error or self._assembly.error

    @error.setter
    def error(self, told: str) -> None:
        self._error = told

    def add(self, event: Event) -> None:
        """Take an event into account."""
        body = event.body
        if body is not None:
            self._assembly.add(body)
