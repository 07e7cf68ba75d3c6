"""OpenAI's chat completions: the session's own form, so nothing is converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyline_adapters.proxy.body import Body
from leyline_adapters.proxy.dialect import Telling, Unmanaged
from leyline_adapters.proxy.problems import Api
from leyline_adapters.proxy.streams import Event
from leyline_agent.adapter import Request
from leyline_agent.message import Message
from leyline_agent.turn import Turn
from leyline_agent.wrapping.streams import Assembly

__all__ = ["RESERVED", "ChatCompletions"]

RESERVED = frozenset({"self", "messages", "tools", "extra_body", "expected_version"})
"""Names that mean something else to `Session.begin` than they may in a body."""


class ChatCompletions:
    """`/v1/chat/completions`."""

    api: Api = "openai"
    adapter = "openai"

    def asked(self, body: Body) -> _Asked:
        """What a request asks for. Raises Unmanaged."""
        if "leyline" in body.values:
            raise Unmanaged("the request has a field leyline: somebody else manages its session")
        return _Asked(body)

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer itself; None when no choice is in it."""
        return dict(body) if body.get("choices") else None

    def delivered(self, values: Mapping[str, Any], turn: Turn) -> Mapping[str, Any]:
        """An answer that finished a turn, without recalls and with the usage of all its calls."""
        told: Mapping[str, Any] = turn.delivered(values)
        return told

    def cleaned(self, delivery: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same for a stream's chunks."""
        return delivery

    def stream(self) -> _Chunks:
        """For an answer that is streamed."""
        return _Chunks()


class _Asked:
    """A request; its messages and tools are the very objects that were read."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.messages: Sequence[Message] = body.values.get("messages", ())
        found = body.values.get("tools")
        self.tools: Sequence[Mapping[str, Any]] | None = found if isinstance(found, list) else None
        self.rest = {key: v for key, v in body.values.items() if key not in RESERVED}

    def sent(self, request: Request) -> bytes:
        """The request to send; what an adapter adds goes beside the other fields."""
        given = {key: value for key, value in request.items() if key != "extra_body"}
        added = request.get("extra_body") or {}
        return self._body.replaced({**self._body.values, **given, **added})


class _Chunks(Telling):
    """A streamed chat completion."""

    _assembly: Assembly

    def __init__(self) -> None:
        super().__init__(Assembly())
        self.ended = False
        self.error = ""

    @property
    def finished(self) -> bool:
        """Whether the reply is whole, though figures may follow."""
        return super().finished or self.ended

    def add(self, event: Event) -> None:
        """Take an event into account."""
        if event.data == "[DONE]":
            self.ended = True
            return
        body = event.body
        if body is None:
            return
        if body.get("error"):
            self.error = "the upstream told of an error in the stream"
        self._assembly.add(body)
