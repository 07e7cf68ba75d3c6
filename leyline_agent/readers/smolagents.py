"""smolagents: `intermediate_steps` of messages with tool-call and tool-response roles."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.message import Message, text
from leyline_agent.readers.chat import Chat, assistant, looks_like_messages, tool_call
from leyline_agent.readers.fields import mappings
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings", "to_chat"]

NAME = "smolagents"
CALLING = "Calling tools:\n"
_MAX_LITERAL = 1_000_000
_META = ("model_id", "question", "answer", "true_answer", "agent_action_type", "token_counts")


def matches(record: Any) -> bool:
    """An object with `intermediate_steps`."""
    return isinstance(record, dict) and looks_like_messages(record.get("intermediate_steps"))


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run."""
    steps = mappings(record["intermediate_steps"], "intermediate_steps")
    yield Recording(
        id=str(record.get("id") or record.get("task_id") or ""),
        format=NAME,
        messages=tuple(to_chat(steps)),
        meta={key: record[key] for key in _META if record.get(key)},
    )


def to_chat(steps: list[Message]) -> list[Message]:
    """OpenAI-chat messages of smolagents'.

    "Calling tools:" messages become calls of the assistant message before them. What comes back
    without a call, such as a parse error, is a user message, as smolagents sends it to the model.
    """
    chat = Chat()
    for step in steps:
        content = text(step)
        if step["role"] in ("tool-response", "tool"):
            chat.observe(content, is_error=_is_error(content))
        elif step["role"] == "tool-call" or content.startswith(CALLING):
            _add_calls(chat, content)
        else:
            chat.add({"role": step["role"], "content": content})
    return chat.messages


def _is_error(content: str) -> bool:
    """Whether it reports a failed step: those open with "Error:", behind the call's id if any."""
    first, _, rest = content.partition("\n")
    return (rest if first.startswith("Call id:") else first).startswith("Error:")


def _add_calls(chat: Chat, content: str) -> None:
    calls = _parse(content.removeprefix(CALLING), chat)
    last = chat.messages[-1] if chat.messages else None
    joins = last is not None and last["role"] == "assistant" and not last.get("tool_calls")
    if calls is None:
        chat.add(assistant(content))
    elif joins:
        said = chat.messages.pop()["content"]
        chat.add(assistant(said, calls))
    else:
        chat.add(assistant(None, calls))


def _parse(literal: str, chat: Chat) -> list[dict[str, Any]] | None:
    """The calls in a Python literal; None when the text is not one."""
    if len(literal) > _MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in the text are not our user's concern
            value = ast.literal_eval(literal.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(c, dict) and isinstance(c.get("function"), dict) for c in value):
        return None
    return [_call(call, chat) for call in value]


def _call(call: Mapping[str, Any], chat: Chat) -> dict[str, Any]:
    name, arguments = str(call["function"].get("name")), call["function"].get("arguments")
    if isinstance(arguments, str):
        arguments = {"code" if name == "python_interpreter" else "input": arguments}
    elif not isinstance(arguments, dict):
        arguments = {} if arguments is None else {"input": repr(arguments)}
    return tool_call(str(call.get("id") or chat.new_id()), name, _jsonable(arguments))


def _jsonable(value: Any) -> Any:
    """Python literals that JSON lacks (tuples, sets, bytes) as the nearest it has."""
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_jsonable(item) for item in value]
    return value if value is None or isinstance(value, str | int | float) else repr(value)
