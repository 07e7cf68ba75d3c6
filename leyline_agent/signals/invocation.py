"""Tool calls as name and arguments, also where the harness speaks plain text."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, NamedTuple

from leyline_agent.trajectory import ToolCall

__all__ = ["Invocation", "invocation"]

# The window commands of SWE-agent's text interface; anything else in a fence is shell.
_WINDOW_TOOLS = frozenset(
    "create edit find_file goto insert open scroll_down scroll_up search_dir search_file "
    "submit".split()
)
_PATH = re.compile(r"[\w.+@-]+(?:/[\w.+@-]+)*")


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
    """The last call in a message: `<function=...>` XML, or a fenced block: shell, or a whole file
    where its label ends in a path (```python src/calc.py).
    """
    end = text.rfind("</function>")
    start = text.rfind("<function=", 0, max(end, 0))
    if start >= 0:
        name, _, body = text[start + len("<function=") : end].partition(">")
        return Invocation(name, dict(map(_parameter, body.split("<parameter=")[1:])))
    label, block = _last_block(text)
    if path := _path(label):
        return Invocation("write_file", {"path": path, "content": block})
    command = block.strip()
    verb = command.split(maxsplit=1)[0] if command else ""
    if verb in _WINDOW_TOOLS:
        return Invocation(verb, {"text": command})
    return Invocation("bash", {"command": command}) if command else Invocation("", {})


def _last_block(text: str) -> tuple[str, str]:
    """Label and text of the last closed block between fences; "" when there is none."""
    last, label, fence = ("", ""), "", ""
    block: list[str] = []
    for line in text.splitlines():
        if not fence:
            if line.startswith("```"):
                fence = line[: len(line) - len(line.lstrip("`"))]
                label, block = line[len(fence) :].strip(), []
        elif line.startswith(fence) and not line.rstrip().strip("`"):
            last, fence = (label, "\n".join(block)), ""
        else:
            block.append(line)
    return last


def _path(label: str) -> str:
    """The path in a block's label, the only word or the one behind the language; "" without."""
    words = label.split()
    named = len(words) == 2 or (len(words) == 1 and ("/" in label or "." in label))
    return words[-1] if named and _PATH.fullmatch(words[-1]) else ""


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
