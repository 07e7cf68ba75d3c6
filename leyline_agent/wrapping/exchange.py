"""One model call that a scope has taken up: what whoever makes it needs to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from leyline_agent.adapter import CallingAdapter, Request
from leyline_agent.wrapping.streams import as_it_is

__all__ = ["AsItCame", "Exchange"]


class Exchange(Protocol):
    """One model call that a scope has taken up.

    Attributes:
        request: keyword arguments to call with.
        caller: makes the call instead of the library; None when the library does.
    """

    request: Request
    caller: CallingAdapter | None

    @property
    def may_advance(self) -> bool:
        """Whether the reply may not be for the caller, so that a stream of it is held."""
        ...

    def advance(self, response: Any) -> bool:
        """Whether it was not; `request` is then what to call with next."""
        ...

    def answered(self, response: Any) -> None:
        """The call was answered."""
        ...

    def delivered(self, response: Any) -> Any:
        """The response as the caller is to get it, once it was answered."""
        ...

    def delivery(self) -> Callable[[Any], Any]:
        """The same for the chunks of a stream, one after the other."""
        ...

    def failed(self, error: BaseException | str) -> None:
        """The call failed, or its stream was abandoned. Of no effect once answered."""
        ...


class AsItCame:
    """The part of an exchange whose replies are all for its caller, as they come."""

    may_advance = False

    def advance(self, response: Any) -> bool:
        """Never."""
        return False

    def delivered(self, response: Any) -> Any:
        """The response."""
        return response

    def delivery(self) -> Callable[[Any], Any]:
        """What gives each chunk as it is."""
        return as_it_is
