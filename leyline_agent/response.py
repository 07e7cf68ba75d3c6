"""Reading what clients pass around: messages and responses, as dictionaries or library objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from leyline_agent.errors import TrajectoryError
from leyline_agent.message import Message
from leyline_agent.usage import read

__all__ = ["as_dict", "as_message", "as_messages", "reply", "usage"]


def as_dict(value: Any) -> Mapping[str, Any] | None:
    """A mapping as it is, a pydantic object (openai, litellm) dumped; None for anything else."""
    if type(value) is dict or isinstance(value, Mapping):  # The first is much quicker to tell.
        return value
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        dumped = dump(exclude_none=True)
        return dumped if isinstance(dumped, Mapping) else None
    return None


def as_message(value: Any, index: int) -> Message:
    """One message of a request as a plain dictionary; the caller's own when it is one.

    Raises:
        TrajectoryError: it is no message.
    """
    message = as_dict(value)
    if message is None:
        raise TrajectoryError(
            f"message {index} is a {type(value).__name__}; pass dictionaries with 'role' and "
            "'content', or the message objects of openai or litellm"
        )
    if not isinstance(message.get("role"), str):
        raise TrajectoryError(
            f"message {index} has no role; its keys are {sorted(map(str, message))}"
        )
    return message if isinstance(message, dict) else dict(message)


def as_messages(values: Any) -> list[Message]:
    """The messages of a request as plain dictionaries.

    Raises:
        TrajectoryError: it is no list, or holds something that is no message.
    """
    if not isinstance(values, Iterable) or isinstance(values, str | bytes | Mapping):
        raise TrajectoryError(f"the messages are a {type(values).__name__}; pass a list of them")
    return [as_message(value, index) for index, value in enumerate(values)]


def reply(response: Any) -> Message | None:
    """The assistant message in a response; None when there is none.

    Takes a chat completion, a message, an answer of Anthropic's, or plain text, each as a
    dictionary or a library object.
    """
    if isinstance(response, str):
        return {"role": "assistant", "content": response}
    body = as_dict(response)
    if body is None:
        return None
    if body.get("role") == "assistant":
        return _anthropic(body) if body.get("type") == "message" else dict(body)
    choices = body.get("choices")
    first = as_dict(choices[0]) if isinstance(choices, list) and choices else None
    message = as_dict(first.get("message")) if first else None
    return {**message, "role": "assistant"} if message else None


def _anthropic(body: Mapping[str, Any]) -> Message:
    """The message in an answer of Anthropic's; its blocks are chat where they can be."""
    from leyline_agent.readers.anthropic_messages import to_chat

    blocks = [as_dict(block) or block for block in body.get("content") or ()]
    (message,) = to_chat([{"role": "assistant", "content": blocks}])
    return message


def usage(response: Any) -> dict[str, Any] | None:
    """The `usage` of a response that counts prompt tokens; None when there is none."""
    body = as_dict(response) or {}
    found = as_dict(body.get("usage"))
    if found is None:
        return None
    plain = {key: as_dict(told) or told for key, told in found.items()}
    return plain if read(plain) else None
