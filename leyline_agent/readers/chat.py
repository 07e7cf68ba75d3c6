"""Chat messages: the common tongue every reader translates into.

`normalise` takes OpenAI-chat messages as providers and harnesses write them (content parts,
arguments as objects, missing ids, legacy function calls, Anthropic blocks) and gives back plain
ones: string content where it is all text, arguments as JSON text, every call with an id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from leyline_agent.errors import TrajectoryError
from leyline_agent.message import Message
from leyline_agent.message import text as message_text
from leyline_agent.readers import anthropic_blocks
from leyline_agent.readers.fields import items, mapping, mappings, text

__all__ = [
    "Chat",
    "assistant",
    "looks_like_messages",
    "normalise",
    "tool_call",
    "tool_result",
    "traced",
    "usages",
]

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_KEPT = ("name", "reasoning_content", "is_error", "extra")


def looks_like_messages(value: Any) -> bool:
    """Whether a JSON value is a non-empty list of objects with roles."""
    return isinstance(value, list) and bool(value) and all(_has_role(item) for item in value)


def _has_role(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("role"), str)


def tool_call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """An OpenAI tool call; arguments that are not text become JSON text."""
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else arguments, ensure_ascii=False)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(content: str | None, calls: Sequence[Mapping[str, Any]] = ()) -> Message:
    """An assistant message; without calls the field is left out."""
    message: Message = {"role": "assistant", "content": content}
    if calls:
        message["tool_calls"] = [dict(call) for call in calls]
    return message


def tool_result(
    call_id: str,
    content: Any,
    *,
    is_error: bool = False,
    exit_code: int | None = None,
) -> Message:
    """A tool message. The error flag and the exit code are left out where they say nothing."""
    message: Message = {"role": "tool", "tool_call_id": call_id, "content": content}
    if is_error:
        message["is_error"] = True
    if exit_code is not None:
        message["extra"] = {"exit_code": exit_code}
    return message


class Chat:
    """A conversation being built: hands out call ids and knows which calls are still open."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.open_calls: list[str] = []
        self._num_calls = 0

    def new_id(self) -> str:
        """A call id that is the same whenever the same record is read."""
        self._num_calls += 1
        return f"call_{self._num_calls}"

    def add(self, message: Message) -> None:
        """Append a message and follow which calls it opens or answers."""
        if message["role"] == "tool":
            if message["tool_call_id"] in self.open_calls:
                self.open_calls.remove(message["tool_call_id"])
        else:
            self.open_calls = [call["id"] for call in message.get("tool_calls", ())]
        self.messages.append(message)

    def say(self, content: str | None, name: str, arguments: Any) -> None:
        """Append an assistant message with one call under a new id."""
        self.add(assistant(content, [tool_call(self.new_id(), name, arguments)]))

    def observe(
        self, content: Any, *, is_error: bool = False, exit_code: int | None = None
    ) -> None:
        """Append what came back: the open call's result, or a user message when none is open.

        A single observation for several calls answers the first; the others' results are empty.
        """
        if not self.open_calls:
            message: Message = {"role": "user", "content": content}
            self.add({**message, "is_error": True} if is_error else message)
            return
        for call_id in list(self.open_calls):
            self.add(tool_result(call_id, content, is_error=is_error, exit_code=exit_code))
            content, is_error, exit_code = "", False, None


def normalise(raw: Any, where: str = "messages") -> list[Message]:
    """Plain OpenAI-chat messages of a list of them, or of Anthropic's.

    Raises:
        TrajectoryError: something in the list is not a message, with its place.
    """
    return [message for message, _, _ in traced(raw, where)]


def traced(raw: Any, where: str = "messages") -> Iterator[tuple[Message, int, tuple[int, ...]]]:
    """`normalise`, each message with the index of what it was made of, and of its blocks there."""
    chat = Chat()
    for index, item in enumerate(items(raw, where)):
        place = f"{where}[{index}]"
        for message, blocks in anthropic_blocks.traced(mapping(item, place), place):
            plain = _plain(message, chat, place)
            chat.add(plain)
            yield plain, index, blocks


def _plain(message: Mapping[str, Any], chat: Chat, where: str) -> Message:
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise TrajectoryError(
            f"{where}: role {role!r} is not one of {', '.join(sorted(ROLES))}; "
            "if this is a harness's own format, convert it to OpenAI-chat messages first"
        )
    result: Message = {"role": role, "content": _content(message.get("content"), where)}
    result.update((key, message[key]) for key in _KEPT if message.get(key))
    if role == "assistant":
        calls = _calls(message, chat, where)
        return {**result, "tool_calls": calls} if calls else result
    if role in ("tool", "function"):
        return _result(result, message, chat)
    return result


def _content(content: Any, where: str) -> Any:
    """A string where all parts are text, as the model reads it; other parts stay parts."""
    if content is None or isinstance(content, str):
        return content
    parts = [
        part if isinstance(part, str) else mapping(part, f"{where}.content[{index}]")
        for index, part in enumerate(items(content, f"{where}.content"))
    ]
    if all(isinstance(part, str) or part.get("type") == "text" for part in parts):
        return message_text({"content": parts})
    return parts


def _calls(message: Mapping[str, Any], chat: Chat, where: str) -> list[dict[str, Any]]:
    raw = mappings(message.get("tool_calls"), f"{where}.tool_calls")
    if not raw and message.get("function_call"):
        raw = [{"function": message["function_call"]}]
    return [_call(call, chat, where) for call in raw]


def _call(call: Mapping[str, Any], chat: Chat, where: str) -> dict[str, Any]:
    function = mapping(call.get("function", call), f"{where}.tool_calls.function")
    name = text(function.get("name"), f"{where}.tool_calls.function.name")
    return tool_call(str(call.get("id") or chat.new_id()), name, function.get("arguments"))


def _result(plain: Message, message: Mapping[str, Any], chat: Chat) -> Message:
    """A tool message with its id; one that names no call and follows none is a user's."""
    call_id = message.get("tool_call_id") or next(iter(chat.open_calls), None)
    if call_id is None:
        return {**plain, "role": "user"}
    return {**plain, "role": "tool", "tool_call_id": str(call_id)}


def usages(responses: Iterable[Any]) -> tuple[Mapping[str, Any], ...]:
    """The usage fields of provider responses that have one."""
    found = (response.get("usage") for response in responses if isinstance(response, dict))
    return tuple(usage for usage in found if isinstance(usage, dict))
