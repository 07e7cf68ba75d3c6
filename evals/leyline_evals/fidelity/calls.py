"""The next call in a reply, as what it means: two replies that call the same are the same."""

from __future__ import annotations

import ast
import json
import re
import shlex

__all__ = ["meaning"]

_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.S)
_FENCE = re.compile(r"```(\w*)\n(.*?)(?:```|\Z)", re.S)


def meaning(reply: str) -> str:
    """A text that is equal for replies whose next call is the same.

    A `<tool_call>` counts by its name and arguments, a fenced block of Python by its syntax tree,
    any other block by its words; a reply without a call by its words.
    """
    call = _CALL.search(reply)
    if call is not None:
        try:
            return json.dumps(json.loads(call[1]), sort_keys=True)
        except json.JSONDecodeError:
            return _words(call[1])
    block = _FENCE.search(reply)
    if block is None:
        return _words(reply)
    if block[1] in ("python", "py"):
        try:
            return ast.dump(ast.parse(block[2]))
        except (SyntaxError, ValueError):
            return _words(block[2])
    return _words(block[2])


def _words(text: str) -> str:
    """As a shell splits them, where it can."""
    try:
        return json.dumps(shlex.split(text, comments=True))
    except ValueError:
        return json.dumps(text.split())
