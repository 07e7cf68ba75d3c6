"""Tool calls as name and arguments, also where the harness speaks plain text."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from leyline_agent.trajectory import ToolCall

__all__ = ["Invocation", "invocation"]

_FUNCTION = re.compile(r"<function=(\w+)>(.*?)</function>", re.DOTALL)
_PARAMETER = re.compile(r"<parameter=(\w+)>(.*?)</parameter>", re.DOTALL)
_FENCE = re.compile(r"^```[\w-]*[ \t]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
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
    functions = _FUNCTION.findall(text)
    if functions:
        name, body = functions[-1]
        return Invocation(
            name, {key: _value(value.strip("\n")) for key, value in _PARAMETER.findall(body)}
        )
    blocks = _FENCE.findall(text if text.endswith("\n") else text + "\n")
    if not blocks:
        return Invocation("", {})
    command = blocks[-1].strip()
    verb = command.split(maxsplit=1)[0] if command else ""
    if verb in _WINDOW_TOOLS:
        return Invocation(verb, {"text": command})
    return Invocation("bash", {"command": command})


def _value(text: str) -> Any:
    """A parameter's text; lists of numbers (`view_range`) as lists."""
    if text.strip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
