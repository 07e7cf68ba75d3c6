"""SWE-agent 1.1: a history processor that shows the model an edited history.

    agent = DefaultAgent.from_config(config)
    agent.history_processors.insert(0, LeylineHistory(policies="truncate_older_than:n=5"))

SWE-agent's YAML takes its own processors only, so the object is put into the list, in front of
`cache_control`, whose marks belong on what is sent. The agent's `history` stays the full record.

A processor sees requests and never replies: a turn is committed when its view is handed out, and
receipts know no usage. For these, and for engines that splice, let SWE-agent's `api_base` name a
`leyline proxy`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Unpack

from leyline_adapters.harnesses.native import Harness
from leyline_agent.message import Message
from leyline_agent.policy import PolicyLike
from leyline_agent.settings import SessionOptions

__all__ = ["LeylineHistory"]

Item = dict[str, Any]

_SAID = ("role", "content", "tool_calls", "cache_control", "thinking_blocks")


class LeylineHistory:
    """Policies over an agent's history.

    What SWE-agent keeps from its own processors, demonstrations and observations tagged
    `keep_output`, no edit touches.

    Args:
        policies: as for `leyline.Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of the sessions; `observations` is "user" unless they say otherwise, which fits
            SWE-agent's function calling and its parsers of text alike.

    Attributes:
        leyline: the last `sessions`, and in `bypassed` the requests that went out unedited.
    """

    def __init__(
        self,
        policies: PolicyLike | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        pinned = options.get("pinned")
        settings: SessionOptions = {
            "observations": "user",
            **options,
            "pinned": lambda message: _is_kept(message) or bool(pinned and pinned(message)),
        }
        self._harness = Harness(
            "swe-agent", _Codec(), policies, None, journal, settings, makes_calls=False
        )
        self.leyline = self._harness.leyline

    def __call__(self, history: Sequence[Item]) -> list[Item]:
        """The items to send in the place of `history`, which stays as it is."""
        turn = self._harness.begin(history)
        turn.answered(None)
        return turn.messages


class _Codec:
    def read(self, native: Item) -> Message:
        message = {key: native[key] for key in _SAID if native.get(key) is not None}
        if ids := native.get("tool_call_ids"):
            message["tool_call_id"] = ids[0]  # An observation of SWE-agent's answers one call.
        if native.get("is_demo") or "keep_output" in (native.get("tags") or ()):
            message["extra"] = {"kept": True}
        return message

    def edited(self, native: Item, message: Message) -> Item:
        edited: Item = {k: message[k] for k in ("content", "tool_calls") if k in message}
        return {**native, **edited}

    def made(self, message: Message) -> Item:
        kind = "action" if message["role"] == "assistant" else "observation"
        return {**message, "agent": "main", "message_type": kind}


def _is_kept(message: Message) -> bool:
    return bool((message.get("extra") or {}).get("kept"))
