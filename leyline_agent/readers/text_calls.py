"""Calls that a model wrote as text: a fenced command, or XML functions.

The scanners are linear in the text, whatever it holds, and nothing found is ever run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from leyline_agent.message import Message
from leyline_agent.readers.chat import Chat

__all__ = ["TextCall", "fenced", "mini_fenced", "rebuild", "tagged", "uses_xml", "xml"]

SHELL = "bash"
_FENCE_LINE = re.compile(r"^```(\S*)[ \t\r]*$", re.MULTILINE)
_OPEN, _CLOSE = "<parameter=", "</parameter>"
_MINI_LABELS = frozenset({"bash", "mswea_bash_command"})


class TextCall(NamedTuple):
    """A call found in text: what was said around it, the tool and its arguments."""

    said: str
    name: str
    arguments: dict[str, Any]


class _Block(NamedTuple):
    """A fenced block: its label, its span with the fences, the text inside."""

    label: str
    start: int
    end: int
    inside: str


def fenced(content: str) -> TextCall | None:
    """The last fenced block as a shell command (SWE-agent's thought and action)."""
    blocks = list(_blocks(content))
    return _shell(content, blocks[-1]) if blocks else None


def tagged(content: str) -> TextCall | None:
    """The last `<command>...</command>` as a shell command (SWE-agent's XML thought and action)."""
    end = content.rfind("</command>")
    start = content.rfind("<command>", 0, max(end, 0))
    if start < 0:
        return None
    command = content[start + len("<command>") : end]
    said = content[:start].removesuffix("\n") + content[end + len("</command>") :]
    return TextCall(said, SHELL, {"command": command.strip("\n")})


def mini_fenced(content: str) -> TextCall | None:
    """The one block labelled as a command; None when there are several (mini-swe-agent)."""
    blocks = [block for block in _blocks(content) if block.label in _MINI_LABELS]
    return _shell(content, blocks[0]) if len(blocks) == 1 else None


def _blocks(content: str) -> Iterator[_Block]:
    opening: re.Match[str] | None = None
    for line in _FENCE_LINE.finditer(content):
        if opening is None:
            opening = line
        elif not line[1]:
            inside = content[opening.end() + 1 : line.start()]
            yield _Block(opening[1], opening.start(), line.end(), inside)
            opening = None


def _shell(content: str, block: _Block) -> TextCall:
    said = content[: block.start] + content[block.end :].removeprefix("\n")
    return TextCall(said, SHELL, {"command": block.inside.removesuffix("\n")})


def uses_xml(messages: Iterable[Message]) -> bool:
    """Whether calls are written as XML: assistants do, and no message has a native call."""
    written = False
    for message in messages:
        if message.get("tool_calls") or message["role"] == "tool":
            return False
        content = message.get("content")
        if message["role"] == "assistant" and isinstance(content, str) and xml(content):
            written = True
    return written


def xml(content: str) -> TextCall | None:
    """The first `<function=name><parameter=key>value</parameter></function>`; values stay text.

    A missing `</function>`, which serving with stop words cuts off, is allowed at the end.
    """
    before, opening, rest = content.partition("<function=")
    name, bracket, rest = rest.partition(">")
    if not opening or not bracket or not name.strip() or "\n" in name:
        return None
    body, closing, after = rest.partition("</function>")
    if not closing and not body.rstrip().endswith("</parameter>"):
        return None
    said = before.rstrip("\n") + after.removeprefix("\n")
    return TextCall(said, name.strip(), dict(_parameters(body)))


def _parameters(body: str) -> Iterator[tuple[str, str]]:
    start = body.find(_OPEN)
    while start >= 0:
        bracket = body.find(">", start)
        end = body.find(_CLOSE, bracket)
        if bracket < 0 or end < 0:
            return
        value = body[bracket + 1 : end].removeprefix("\n").removesuffix("\n")
        yield body[start + len(_OPEN) : bracket].strip(), value
        start = body.find(_OPEN, end)


def rebuild(messages: Iterable[Message], parse: Callable[[str], TextCall | None]) -> list[Message]:
    """The conversation with calls made of the text `parse` finds, and results of what answers it.

    The user message directly behind such a call is its result. Everything else stays as it is.
    """
    chat = Chat()
    for message in messages:
        content = message.get("content")
        call = None
        if message["role"] == "assistant" and isinstance(content, str):
            call = parse(content)
        if call is not None:
            chat.say(*call)
        elif message["role"] == "user" and chat.open_calls:
            chat.observe(content, exit_code=(message.get("extra") or {}).get("exit_code"))
        else:
            chat.add(message)
    return chat.messages
