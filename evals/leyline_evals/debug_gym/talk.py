"""What is said between the model and debug-gym, as tool calls or in plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from leyline_agent.message import Message
from leyline_agent.signals.commands import shell_effects
from leyline_agent.signals.outputs import Read
from leyline_agent.testing.model import Reply, tool_call
from leyline_evals.solve.protocol import Call, FileTool, Malformed, Toolset, instructions, written
from leyline_evals.solve.protocol import parse as parsed
from leyline_evals.tasks import Problem

__all__ = ["TOOLS", "Asked", "Protocol", "asked", "last", "script", "system"]

Protocol = Literal["tools", "text"]

TOOLS = ("bash", "view", "grep", "edit", "eval", "pdb", "submit")
TOOLSET = Toolset(
    file=FileTool("edit", "path", "new_code"),
    named={
        "view": ("path", "start", "end"),
        "grep": ("pattern", "path"),
        "eval": (),
        "pdb": ("command",),
    },
    numbers=frozenset({"start", "end"}),
    programs=frozenset({"grep"}),
)
_SYSTEM = """\
You mend bugs in programs. You work in a repository, in small steps: read the code that a failing \
test calls, find the cause, change the code, and then run the tests with `eval`. Tests are \
read-only. There is no network. """
_CALLS = "Make one tool call a turn. When the tests pass, call `submit`."
# A model of 1.5 billion parameters does what the last lines ask for; asked to say first what is
# wrong, it says something wrong and stops.
_LAST = """\
These results stay the same until the code is changed. Look first at a file that you have not seen \
yet. When you know what is wrong, reply with the whole file, mended, in one block that begins with \
```python and the path."""
_NO_CALL = (
    "Your reply makes no tool call, so nothing was done. Make one: bash, view, grep, edit, eval, "
    "pdb, or submit when you are done."
)


@dataclass(frozen=True)
class Asked:
    """What a reply asks debug-gym to do.

    Attributes:
        call: of a tool, as debug-gym takes it; None when nothing can be made of the reply.
        problem: what is wrong with it, for the model.
        action: in a word, for the step's record.
        reads, writes: paths, as far as the call tells.
    """

    call: Mapping[str, Any] | None = None
    problem: str | None = None
    action: str = "malformed"
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


def system(protocol: Protocol) -> str:
    """The system prompt."""
    told = _CALLS if protocol == "tools" else f"\n\n{instructions(TOOLSET)}"
    return _SYSTEM + told


def last(protocol: Protocol) -> str:
    """What the first prompt ends with, behind what the tests print; nothing for tool calls."""
    return _LAST if protocol == "text" else ""


def asked(reply: Message, protocol: Protocol) -> Asked:
    """What a reply asks for. Nothing in it makes this raise."""
    try:
        name, arguments, call_id = _called(reply) if protocol == "tools" else _written(reply)
    except Malformed as error:
        return Asked(problem=str(error))
    except _Wrong as error:
        return Asked(problem=str(error))
    reads, writes = _paths(name, arguments)
    return Asked(
        call={"id": call_id, "name": name, "arguments": arguments},
        action=name if name in TOOLS else "unknown",
        reads=reads,
        writes=writes,
    )


class _Wrong(Exception):
    """Said to the model."""


def _called(reply: Message) -> tuple[str, dict[str, Any], str | None]:
    """The first call of a reply: debug-gym takes one a turn."""
    calls = reply.get("tool_calls") or ()
    if not calls:
        raise _Wrong(_NO_CALL)
    function = calls[0].get("function") or {}
    name, given = str(function.get("name")), function.get("arguments") or "{}"
    try:
        arguments = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise _Wrong(f"The arguments of {name} are no JSON ({error}); nothing was done.") from error
    if not isinstance(arguments, dict):
        raise _Wrong(f"The arguments of {name} are no JSON object; nothing was done.")
    return name, arguments, calls[0].get("id")


def _written(reply: Message) -> tuple[str, dict[str, Any], None]:
    name, arguments = TOOLSET.call(parsed(str(reply.get("content") or "")))
    return name, arguments, None


def _paths(name: str, arguments: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a call reads and writes."""
    path = arguments.get("path")
    if name == "view" and isinstance(path, str):
        return (path,), ()
    if name == "edit" and isinstance(path, str):
        return (), (path,)
    command = arguments.get("command")
    if name == "bash" and isinstance(command, str):
        effects = shell_effects(command)
        reads = (piece.path for piece in effects.shows if isinstance(piece, Read))
        return tuple(dict.fromkeys(reads)), effects.writes
    return (), ()


def script(problem: Problem, protocol: Protocol) -> Sequence[Reply]:
    """What `--model scripted` says: it looks, writes the gold down, and submits."""
    calls = [Call(name, arguments) for name, arguments in _steps(problem)]
    if protocol == "text":
        return [written(TOOLSET.action(call)) for call in calls]
    return [tool_call(call.name, **call.arguments) for call in calls]


def _steps(problem: Problem) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "bash", {"command": "ls -R"}
    for path in problem.gold:
        yield "view", {"path": path}
    for path, text in problem.gold.items():
        yield "edit", {"path": path, "new_code": text}
    yield "eval", {}
    yield "submit", {}
