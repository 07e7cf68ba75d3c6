"""OpenHands completion logs, and litellm's: one model call with all it was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.readers.chat import looks_like_messages, normalise, usages
from leyline_agent.readers.fields import mapping, mappings
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings"]

NAME = "openhands-completion"


def matches(record: Any) -> bool:
    """An object with `messages` and an OpenAI `response`."""
    if not isinstance(record, dict) or not looks_like_messages(record.get("messages")):
        return False
    return _choices(record.get("response")) is not None


def _choices(response: Any) -> list[Any] | None:
    choices = response.get("choices") if isinstance(response, dict) else None
    return choices if isinstance(choices, list) else None


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run: the messages sent and the reply.

    For a model without native calls OpenHands also logs the messages before it wrote the calls
    out as text (`fncall_messages`); those are taken, they say the same with calls as calls.
    """
    native = looks_like_messages(record.get("fncall_messages"))
    messages = list(record["fncall_messages" if native else "messages"])
    response = mapping(record["response"], "response")
    reply = record.get("fncall_response") if native else response
    for choice in mappings(_choices(reply or response), "response.choices")[:1]:
        messages.append(mapping(choice.get("message"), "response.choices[0].message"))
    kwargs = mapping(record.get("kwargs") or {}, "kwargs")
    yield Recording(
        id=str(response.get("id") or ""),
        format=NAME,
        messages=tuple(normalise(messages)),
        tools=tuple(mappings(kwargs.get("tools") or record.get("tools"), "kwargs.tools")),
        usage=usages([response]),
        meta={"model": response.get("model"), "cost": record.get("cost")},
    )
