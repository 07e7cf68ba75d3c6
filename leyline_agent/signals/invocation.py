"""Tool calls as name and arguments, also where the harness speaks plain text."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

from leyline_agent.trajectory import ToolCall

__all__ = ["Invocation", "invocation"]

# The window commands of SWE-agent's text interface; anything else in a fence is shell.
_WINDOW_TOOLS = frozenset(
    "create edit find_file goto insert open scroll_down scroll_up search_dir search_file "
    "submit".split()
)


class Invocation(NamedTuple):
    """A tool's name and arguments; name "" when no call can be made out."""

    name: str
    arguments: dict[str, Any]


def invocation(call: ToolCall) -> Invocation:
    """What `call` calls."""
    if call.name:
        return Invocation(call.name, call.arguments)
    text = call.arguments.get("text")
    return _from_text(text) if isinstance(text, str) else Invocation("", {})


@lru_cache(maxsize=512)
def _from_text(text: str) -> Invocation:
    """The last call in a message: `<function=...>` XML, or a fenced block of shell."""
    end = text.rfind("</function>")
    start = text.rfind("<function=", 0, max(end, 0))
    if start >= 0:
        name, _, body = text[start + len("<function=") : end].partition(">")
        return Invocation(name, dict(map(_parameter, body.split("<parameter=")[1:])))
    command = _last_block(text).strip()
    verb = command.split(maxsplit=1)[0] if command else ""
    if verb in _WINDOW_TOOLS:
        return Invocation(verb, {"text": command})
    return Invocation("bash", {"command": command}) if command else Invocation("", {})


def _last_block(text: str) -> str:
    """The text of the last closed block between ``` fences; "" when there is none."""
    last = ""
    block: list[str] | None = None
    for line in text.splitlines():
        if block is None:
            block = [] if line.startswith("```") else None
        elif line.rstrip() == "```":
            last, block = "\n".join(block), None
        else:
            block.append(line)
    return last


def _parameter(text: str) -> tuple[str, Any]:
    name, _, value = text.partition(">")
    return name, _value(value.partition("</parameter>")[0].strip("\n"))


def _value(text: str) -> Any:
    """A parameter's text; lists of numbers (`view_range`) as lists."""
    if text.strip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
