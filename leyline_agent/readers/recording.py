"""A recorded run: what every reader makes of its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leyline_agent.message import Message
from leyline_agent.trajectory import Trajectory

__all__ = ["Recording"]


@dataclass(frozen=True)
class Recording:
    """One recorded run as OpenAI-chat messages.

    Attributes:
        id: the run's name in its file.
        format: the reader that understood it.
        messages: the whole conversation. Tool results carry `is_error: True` where the format
            flags them, and `extra: {"exit_code": n}` where it keeps exit codes; the model read
            neither.
        tools: the tool specifications, OpenAI style, where recorded.
        usage: the provider's own usage of each model call, in order, where recorded.
        resolved: whether the run solved its task; None when the format does not say.
        meta: bookkeeping worth keeping: model, exit status, cost, ...
    """

    id: str
    format: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    usage: tuple[Mapping[str, Any], ...] = ()
    resolved: bool | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def trajectory(self) -> Trajectory:
        """The run as an unedited trajectory."""
        return Trajectory(self.messages, tools=self.tools)
