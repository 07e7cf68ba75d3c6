"""mini-swe-agent's messages as chat messages and back.

They are chat messages with bookkeeping in `extra`; with its Responses models an assistant message
is the response object, and a tool result an input item.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leyline_adapters.harnesses.native import Completion, completion
from leyline_agent.message import Message, called, calls, text

__all__ = ["MiniCodec", "answered"]

Native = dict[str, Any]


class MiniCodec:
    """A `native.Codec`. Chat messages lose `extra`, which holds whole responses, but for the status
    of a command: signals read it.
    """

    def read(self, native: Native) -> Message:
        """The chat message."""
        if native.get("object") == "response":
            message = _of_response(native)
        elif native.get("type") == "function_call_output":
            message = {
                "role": "tool",
                "tool_call_id": native.get("call_id"),
                "content": native.get("output"),
            }
        else:
            message = {key: value for key, value in native.items() if key != "extra"}
        code = (native.get("extra") or {}).get("returncode")
        return message if code is None else {**message, "extra": {"returncode": code}}

    def edited(self, native: Native, message: Message) -> Native:
        """The native message with an edited one's text and calls; what else it has stays."""
        if native.get("object") == "response":
            return {**native, "output": list(_items(native["output"], message))}
        if native.get("type") == "function_call_output":
            return {**native, "output": text(message)}
        bookkeeping = {"extra": native["extra"]} if "extra" in native else {}
        return {**message, **bookkeeping}

    def made(self, message: Message) -> Native:
        """The message itself: both APIs take chat messages of users."""
        return message


def answered(native: Native) -> Completion:
    """What a model returned, or refused with a format error, as a chat completion.

    The whole response is in `extra`, unless the message is it or the model is one for tests.
    """
    whole = (native.get("extra") or {}).get("response", native)
    if not isinstance(whole, Mapping):
        return {"choices": []}
    if "choices" in whole:
        return whole
    usage = whole.get("usage") or {}
    if "input_tokens" in usage:
        details = {"cached_tokens": (usage.get("input_tokens_details") or {}).get("cached_tokens")}
        usage = {
            "prompt_tokens": usage["input_tokens"],
            "completion_tokens": usage.get("output_tokens"),
            "prompt_tokens_details": details,
        }
    return completion(MiniCodec().read(dict(whole)), usage)


def _of_response(native: Native) -> Message:
    items: Sequence[Mapping[str, Any]] = native.get("output") or ()
    said = "".join(text(item) for item in items if item.get("type") == "message")
    made = [
        {
            "id": item.get("call_id"),
            "type": "function",
            "function": {"name": item.get("name"), "arguments": item.get("arguments")},
        }
        for item in items
        if item.get("type") == "function_call"
    ]
    return {"role": "assistant", "content": said, **({"tool_calls": made} if made else {})}


def _items(items: Sequence[Mapping[str, Any]], message: Message) -> Iterator[Mapping[str, Any]]:
    """A response's items with the text and the arguments of an edited message."""
    arguments = {call.get("id"): called(call)[1] for call in calls(message)}
    said = text(message)
    is_unchanged = said == "".join(text(item) for item in items if item.get("type") == "message")
    if said and not is_unchanged:
        yield {"type": "message", "role": "assistant", "content": said}
    for item in items:
        if item.get("type") == "function_call" and item.get("call_id") in arguments:
            yield {**item, "arguments": arguments[item.get("call_id")]}
        elif item.get("type") != "message" or is_unchanged:
            yield item
