"""Tool calls as text: how a model writes them, and how they are shown to one without a template.

Read: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (Hermes, Qwen), and a reply that is
nothing but `{"name": ..., "parameters": {...}}` (Llama 3). What does not parse stays text.

Written: templates without tool support get plain messages in the Hermes form (`plain_messages`).
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from leyline_agent.message import Message
from leyline_agent.serving.detokenize import overlap

__all__ = [
    "Reply",
    "ToolCallParser",
    "forget_calls",
    "native_messages",
    "parse_reply",
    "plain_messages",
]

ToolCall = dict[str, Any]
"""One entry of an OpenAI message's `tool_calls`."""

_NATIVE_ROLES = {"developer": "system", "function": "tool"}
_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_PYTHON_TAG = "<|python_tag|>"
_REMEMBERED_CALLS = 4096
_LONGEST_LITERAL = len("-Infinity")
_DECODER = json.JSONDecoder(strict=False)  # small models write raw newlines inside strings
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_TOOLS_PROMPT = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{declarations}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


class Reply(NamedTuple):
    """What a generated text says: its text (None when there is none) and its calls."""

    content: str | None
    tool_calls: list[ToolCall]


def parse_reply(text: str, tools: Sequence[Mapping[str, Any]]) -> Reply:
    """Text and tool calls of a whole reply; without `tools` all of it is text."""
    parser = ToolCallParser(tools)
    pieces = [*parser.feed(text), *parser.finish()]
    said = "".join(piece for piece in pieces if isinstance(piece, str))
    return Reply(said or None, [piece for piece in pieces if not isinstance(piece, str)])


class ToolCallParser:
    """Splits a growing reply into text and tool calls.

    Text is given out as soon as it cannot be part of a call; from an opening tag on it is held
    until the block is whole. The whitespace around calls is dropped; a reply without calls comes
    out unchanged.

    Args:
        tools: the tools the model was shown; without any, everything is text.
    """

    def __init__(self, tools: Sequence[Mapping[str, Any]]) -> None:
        self._names = frozenset(_tool_name(tool) for tool in tools)
        self._buffer = ""
        self._space = ""  # whitespace that a call may follow
        self._in_block = False  # the buffer begins with an open block
        self._spoke = False
        self._behind_call = False

    def feed(self, text: str) -> list[str | ToolCall]:
        """The text and calls that `text` completes, in order."""
        self._buffer += text
        if self._in_block and ">" not in text:  # no closing tag ends here
            return []
        return list(self._scan(final=False))

    def finish(self) -> list[str | ToolCall]:
        """What is left when the reply has ended."""
        return list(self._scan(final=True))

    def _scan(self, final: bool) -> Iterator[str | ToolCall]:
        if self._names and not self._spoke and not self._behind_call:
            if not final and _may_be_bare(self._buffer):
                return
            calls = _bare_calls(self._buffer, self._names) if final else []
            if calls:
                self._buffer = ""
                yield from calls
        while self._names and (at := self._buffer.find(_OPEN)) >= 0:
            block = _block(self._buffer, at + len(_OPEN), final)
            self._in_block = block is None
            if block is None:
                yield from self._say(self._buffer[:at])
                self._buffer = self._buffer[at:]
                return
            call, end = block
            yield from self._say(self._buffer[: at if call else end])
            self._buffer = self._buffer[end:]
            if call:
                self._space, self._behind_call = "", True
                yield call
        held = 0 if final or not self._names else overlap(self._buffer, _OPEN)
        text, self._buffer = _cut(self._buffer, held)
        yield from self._say(text)
        if final and self._space and not self._behind_call:
            yield self._space

    def _say(self, text: str) -> Iterator[str]:
        """Give out text, but for whitespace at its end; behind a call it starts a new line."""
        text = self._space + text
        if self._behind_call:
            text = text.lstrip()
        said = text.rstrip()
        self._space = text[len(said) :]
        if said:
            yield f"\n{said}" if self._behind_call and self._spoke else said
            self._spoke, self._behind_call = True, False


def _cut(text: str, held: int) -> tuple[str, str]:
    """The text without its last `held` characters, and those."""
    return text[: len(text) - held], text[len(text) - held :]


def _block(text: str, start: int, final: bool) -> tuple[ToolCall | None, int] | None:
    """The call in the block whose inside begins at `start`, and where the block ends.

    (None, start) when the block is malformed; None when more text may complete it.
    """
    if not final and text.find(_CLOSE, start) < 0:
        return None
    try:
        value, end = _DECODER.raw_decode(text, _skip_space(text, start))
    except json.JSONDecodeError as error:
        # A closing tag may stand inside a string that goes on.
        open_end = error.msg.startswith("Unterminated") or error.pos + _LONGEST_LITERAL > len(text)
        return (None, start) if final or not open_end else None
    except (RecursionError, ValueError):  # nested too deep, or an integer too long
        return None, start
    call = _as_call(value)
    rest = text[_skip_space(text, end) :]
    if call is not None and rest.startswith(_CLOSE):
        return call, len(text) - len(rest) + len(_CLOSE)
    if call is not None and _CLOSE.startswith(rest):
        # The reply may end without the closing tag, which serving with stop tokens cuts off.
        return (call, len(text)) if final else None
    return None, start


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _may_be_bare(text: str) -> bool:
    """Whether a reply that begins like this may be nothing but JSON calls."""
    start = text.lstrip()
    return start.startswith(("{", _PYTHON_TAG)) or _PYTHON_TAG.startswith(start)


def _bare_calls(text: str, names: Collection[str]) -> list[ToolCall]:
    """The calls of a reply that is nothing else, `;` or space between them; names must be known."""
    calls: list[ToolCall] = []
    rest = text.strip().removeprefix(_PYTHON_TAG).strip()
    while rest:
        try:
            value, end = _DECODER.raw_decode(rest)
        except (RecursionError, ValueError):
            return []
        call = _as_call(value)
        if call is None or call["function"]["name"] not in names:
            return []
        calls.append(call)
        rest = rest[end:].lstrip("; \t\r\n")
    return calls


def _as_call(value: Any) -> ToolCall | None:
    """A decoded JSON value as an OpenAI tool call; None when it is none."""
    if not isinstance(value, dict):
        return None
    name = value.get("name")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _object(arguments)
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        return None
    function = {"name": name, "arguments": _dumps(arguments)}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object a text holds; None when it holds something else."""
    try:
        value = _DECODER.decode(text)
    except (RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _dumps(value: Any) -> str:
    """JSON as readable text; escaped where half a surrogate pair could not be encoded."""
    text = json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if _HALF_PAIR.search(text) else text


def plain_messages(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
) -> list[Message]:
    """Messages with text content and the roles system, user and assistant only.

    Tools are declared at the end of the system message (a new one when there is none). An
    assistant's calls become `<tool_call>` blocks behind its text, a result becomes a user message
    with a `<tool_response>`, null content is empty, an image is named. Every message but the
    declaring one depends on itself alone, so an edit stays where it was made.
    """
    plain = [_plain(message) for message in messages]
    if not tools:
        return plain
    declared = _TOOLS_PROMPT.format(declarations="\n".join(_dumps(tool) for tool in tools))
    if not plain or plain[0]["role"] != "system":
        return [{"role": "system", "content": declared}, *plain]
    system = "\n\n".join(part for part in (plain[0]["content"], declared) if part)
    return [{"role": "system", "content": system}, *plain[1:]]


def native_messages(messages: Sequence[Message]) -> list[Message]:
    """Messages as chat templates with tool support expect them.

    Content is text, null only where there are calls; arguments of calls are objects, not JSON text.
    Roles and fields of OpenAI's that templates silently leave out become the ones they know.
    """
    return [_native(message) for message in messages]


def _native(message: Message) -> Message:
    native = {**message, "role": _NATIVE_ROLES.get(message["role"], message["role"])}
    if old_call := native.pop("function_call", None):
        native["tool_calls"] = [{"type": "function", "function": old_call}]
    calls = native.get("tool_calls")
    if calls:
        native["tool_calls"] = [_with_object(call) for call in calls]
    if native.get("content") is not None or not calls:
        native["content"] = _text(native.get("content"))
    return native


def _with_object(call: Mapping[str, Any]) -> ToolCall:
    function = dict(call.get("function") or {})
    arguments = function.get("arguments")
    if isinstance(arguments, str) and (value := _object(arguments)) is not None:
        function["arguments"] = value
    return {**call, "function": function}


def _plain(message: Message) -> Message:
    role = str(message.get("role"))
    text = _text(message.get("content"))
    if role in ("system", "developer"):
        return {"role": "system", "content": text}
    if role == "assistant":
        return {
            "role": "assistant",
            "content": "\n".join([*filter(None, [text]), *_calls(message)]),
        }
    if role in ("tool", "function"):
        text = f"<tool_response>\n{text}\n</tool_response>"
    elif role != "user":
        text = f"[{role}]\n{text}"
    return {"role": "user", "content": text}


def _calls(message: Message) -> Iterator[str]:
    """The message's calls as blocks; arguments that are no JSON object are shown as a string."""
    functions = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    functions += filter(None, [message.get("function_call")])
    for function in functions:
        name, arguments = function.get("name"), function.get("arguments") or {}
        if isinstance(name, str) and isinstance(arguments, str):
            yield _known_call(name, arguments)
        else:
            yield _call(name, arguments)


def _call(name: Any, arguments: Any) -> str:
    if not isinstance(arguments, str) or _object(arguments) is None:
        arguments = _dumps(arguments)
    return f'{_OPEN}\n{{"name": {_dumps(name)}, "arguments": {arguments}}}\n{_CLOSE}'


@lru_cache(maxsize=_REMEMBERED_CALLS)
def _known_call(name: str, arguments: str) -> str:
    """`_call`, remembered: a conversation shows the same calls again at every turn."""
    return _call(name, arguments)


def forget_calls() -> None:
    """Forget the calls shown so far."""
    _known_call.cache_clear()


def _text(content: Any) -> str:
    """Content as text; parts that are not text are named in brackets."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(_text(part) for part in content)
    if not isinstance(content, Mapping):
        return str(content)
    inner = content.get("text", content.get("content"))
    if inner is not None:
        return _text(inner)
    kind = str(content.get("type", "part"))
    return "[image]" if "image" in kind else f"[{kind}]"


def _tool_name(tool: Mapping[str, Any]) -> str:
    return str((tool.get("function") or tool).get("name"))
