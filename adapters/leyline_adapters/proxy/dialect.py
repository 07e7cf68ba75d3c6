"""Dialects: what the two APIs have in common, as a call that is a turn needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from leyline_adapters.anthropic import replies as messages
from leyline_adapters.proxy.body import Body
from leyline_adapters.proxy.problems import Api
from leyline_adapters.proxy.streams import Event
from leyline_agent.adapter import Request
from leyline_agent.message import Message
from leyline_agent.turn import Turn
from leyline_agent.wrapping import streams as chat

__all__ = ["Asked", "Dialect", "Telling", "Unmanaged", "Whole"]


class Unmanaged(Exception):
    """A request that cannot be a turn; its text says why."""


class Asked(Protocol):
    """A request as a session takes it."""

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation as chat."""
        ...

    @property
    def tools(self) -> Sequence[Mapping[str, Any]] | None:
        """The tools as OpenAI specifications; None for none."""
        ...

    @property
    def rest(self) -> Mapping[str, Any]:
        """What else it asks for, by name."""
        ...

    def sent(self, request: Request) -> bytes:
        """The request to send, for what the session made of it."""
        ...


class Whole(Protocol):
    """A stream, put together while it goes by.

    Attributes:
        error: what went wrong on the way; "" when nothing did.
    """

    error: str

    @property
    def first_call(self) -> str:
        """The name of the first tool it calls; "" as long as none is known."""
        ...

    @property
    def several(self) -> bool:
        """Whether there is more than one reply in it."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the reply is whole, though figures may follow."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing follows any more."""
        ...

    def add(self, event: Event) -> None:
        """Take an event into account."""
        ...

    def response(self) -> dict[str, Any] | None:
        """The chat completion; None when there is none."""
        ...


class Telling:
    """What a stream tells of the assembly that puts it together; the rest is each API's own."""

    def __init__(self, assembly: chat.Assembly | messages.Assembly) -> None:
        self._assembly = assembly

    @property
    def first_call(self) -> str:
        """The name of the first tool it calls; "" as long as none is known."""
        return self._assembly.first_call

    @property
    def several(self) -> bool:
        """Whether there is more than one reply in it."""
        return self._assembly.several

    @property
    def finished(self) -> bool:
        """Whether the reply is whole, though figures may follow."""
        return self._assembly.finished

    def response(self) -> dict[str, Any] | None:
        """The chat completion; None when there is none."""
        return self._assembly.response()


class Dialect(Protocol):
    """An API that completes chats."""

    @property
    def api(self) -> Api:
        """Whose it is."""
        ...

    @property
    def adapter(self) -> str:
        """The installed adapter for a provider of it."""
        ...

    def asked(self, body: Body) -> Asked:
        """What a request asks for. Raises Unmanaged."""
        ...

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """An answer as a chat completion; None when it is none."""
        ...

    def delivered(self, values: Mapping[str, Any], turn: Turn) -> Mapping[str, Any]:
        """An answer that finished a turn, without recalls and with the usage of all its calls."""
        ...

    def cleaned(self, delivery: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The same for a stream's events: each as it goes on, or DROPPED.

        Args:
            delivery: the turn's.
        """
        ...

    def stream(self) -> Whole:
        """For an answer that is streamed."""
        ...
