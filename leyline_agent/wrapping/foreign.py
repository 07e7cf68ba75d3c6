"""Messages that are not chat's: read by whoever knows their form, and given back in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from leyline_agent.adapter import Request
from leyline_agent.errors import LeylineError
from leyline_agent.message import Message
from leyline_agent.response import as_dict

__all__ = ["Conversation", "conversation"]

GROUP = "leyline.conversations"
"""Entry points of functions that read a request of another API as chat."""


class Conversation(Protocol):
    """A request of another API as chat.

    Attributes:
        messages, tools: as chat; tools are None where there are none.
    """

    messages: list[Message]
    tools: list[dict[str, Any]] | None

    def restored(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The request with what `messages` and `tools` became, in its own form."""
        ...


def conversation(request: Request) -> Conversation | None:
    """The conversation of a request in Anthropic's form; None where it is chat, or unreadable.

    Told by blocks that chat has not, by the client's objects among them, and by the tools' form.
    """
    messages, tools = request.get("messages"), request.get("tools")
    if not isinstance(messages, list | tuple):
        return None
    if not any(map(_is_foreign, messages)) and not _are_foreign(tools):
        return None
    from importlib.metadata import entry_points  # Dear, and needed for such messages only.

    for point in entry_points(group=GROUP, name="anthropic"):
        try:
            made: Conversation = point.load()(request)
        except LeylineError:
            return None  # The session says what is wrong with them.
        return made
    return None


def _is_foreign(message: Any) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, list | tuple):
        return False
    from leyline_agent.readers.anthropic_blocks import has_blocks  # With it come all readers.

    objects = (block for block in content if not isinstance(block, str | Mapping))
    return any(as_dict(block) is not None for block in objects) or has_blocks(message)


def _are_foreign(tools: Any) -> bool:
    given = tools if isinstance(tools, list | tuple) else ()
    return any(isinstance(tool, Mapping) and "input_schema" in tool for tool in given)
