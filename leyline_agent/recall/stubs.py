"""The line under a stub that names the id of what it stands for, and which stubs get one.

Policies know nothing of it: they are shown their own stubs without the line (`Record.seen`), and
the model is sent them with it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container
from typing import Any

from leyline_agent.message import Message, text
from leyline_agent.view import Record, record

__all__ = ["Ids", "has_line", "is_result", "line", "marked", "unmarked"]

_LEN = 6
_END = '") shows the whole output]'
_LINE = re.compile(r'\n\[leyline_recall\("r[0-9a-f]+"\) shows the whole output\]$')


def line(id: str) -> str:
    """What stands under a stub."""
    return f'[leyline_recall("{id}{_END}'


def has_line(content: str) -> bool:
    """Whether a text ends with such a line."""
    return content.endswith(_END) and _LINE.search(content) is not None


class Ids:
    """Short ids of contents: "r" and the first digits of a digest, as many as tell them apart."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._taken: set[str] = set()

    def known(self, content: Any) -> str | None:
        """The id of a content that has one."""
        return self._ids.get(_digest(content))

    def of(self, content: Any) -> str:
        """The id of a content; given now, if it has none."""
        whole = _digest(content)
        if whole not in self._ids:
            lengths = range(_LEN, len(whole) + 1)
            id = next(found for n in lengths if (found := f"r{whole[:n]}") not in self._taken)
            self._ids[whole] = id
            self._taken.add(id)
        return self._ids[whole]

    def claim(self, content: Any, ids: Container[str]) -> str | None:
        """Which of some ids, given earlier, is that of a content; it keeps it."""
        whole = _digest(content)
        prefixes = (f"r{whole[:n]}" for n in range(_LEN, len(whole) + 1))
        id = next((found for found in prefixes if found in ids), None)
        if id is not None:
            self._ids[whole] = id
            self._taken.add(id)
        return id


def _digest(content: Any) -> str:
    payload = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(payload.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_result(message: Message) -> bool:
    """Whether a message is a tool's result."""
    return message.get("role") in ("tool", "function")


def marked(old: Record, new: Record, ids: Ids) -> Record:
    """`new`, which stands for `old` from now on, with the line, where it cuts a tool's result.

    A stub with its line is always shorter than what it stands for.
    """
    same = all(old.message.get(key) == new.message.get(key) for key in ("role", "tool_call_id"))
    if old.redacted or not same or not is_result(new.message):
        return new
    before, after = len(text(old.seen)), len(text(new.message))
    if after >= before and old.bare is None:
        return new
    id = old.recall or ids.of(old.message.get("content"))
    longer = _with_line(new.message, id)
    if len(text(longer)) >= before and old.bare is None:
        return new
    return record(longer)._replace(bare=new.message, recall=id)


def unmarked(found: Record, id: str) -> Record:
    """A record read back from a journal, as `marked` or an answer made it."""
    content = found.message.get("content")
    bare: Any = None
    if isinstance(content, str) and content.endswith(f"\n{line(id)}"):
        bare = content.removesuffix(f"\n{line(id)}")
    elif isinstance(content, list) and content and content[-1] == _part(id):
        bare = content[:-1]
    seen = None if bare is None else {**found.message, "content": bare}
    return found._replace(recall=id, bare=seen)


def _with_line(message: Message, id: str) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, _part(id)]}
    return {**message, "content": f"{content or ''}\n{line(id)}"}


def _part(id: str) -> dict[str, str]:
    return {"type": "text", "text": f"\n{line(id)}"}
