"""What tools read and write: declared by the names of their arguments, never guessed.

    effects = {**BUILTIN, "open_page": ToolEffects(reads=("url",))}

A key names a tool, or a tool and the value of its `command` argument ("str_replace_editor.view").
A tool that is not declared is taken to read and write nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline_agent.signals.commands import shell_effects
from leyline_agent.signals.invocation import Invocation, invocation
from leyline_agent.signals.outputs import WHOLE, Effects, Lines, Piece, Read, Run
from leyline_agent.signals.reading import resolve
from leyline_agent.signals.scripts import scripted_writes
from leyline_agent.trajectory import ToolResult

__all__ = ["BUILTIN", "ToolEffects", "declared", "effects_of"]


@dataclass(frozen=True)
class ToolEffects:
    """What the calls of one tool do.

    Attributes:
        reads: arguments that hold the path of a file whose text the result shows.
        writes: arguments that hold the path of a file the call changes.
        first, last: arguments that hold the first and last line read, counted from 1.
        count: argument that holds the number of lines read.
        span: argument that holds [first, last]; a last of -1 means to the end.
        part: arguments which, when set, choose a part of the file nobody can tell.
        each: argument that holds a list of objects, each with the arguments named above.
        text: argument that holds the text of a file the call creates.
        shell: argument that holds a shell command; the other attributes are then not used.
        repeats: a later call with equal arguments shows the current state of the same thing.
        window: the result names its file and lines itself ("[File: a.py (90 lines total)]").
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    count: str = ""
    span: str = ""
    part: tuple[str, ...] = ()
    each: str = ""
    text: str = ""
    shell: str = ""
    repeats: bool = False
    window: bool = False


_SHELL = ToolEffects(shell="command")
_AGAIN = ToolEffects(repeats=True)
_WINDOW = ToolEffects(window=True)
_VIEW = ToolEffects(reads=("path",), span="view_range")
_WRITE = ToolEffects(writes=("path",))
_CREATE = ToolEffects(writes=("path",), text="file_text")
_EDITORS = ("str_replace_editor", "str_replace_based_edit_tool")

BUILTIN: Mapping[str, ToolEffects] = {
    **dict.fromkeys(("bash", "Bash", "execute_bash", "shell", "run_command", "terminal"), _SHELL),
    # The Anthropic text editor, as OpenHands, SWE-agent 1.x and moatless carry it.
    **{f"{editor}.view": _VIEW for editor in _EDITORS},
    **{f"{editor}.create": _CREATE for editor in _EDITORS},
    **{f"{e}.{command}": _WRITE for e in _EDITORS for command in ("str_replace", "insert")},
    **{f"{editor}.undo_edit": _WRITE for editor in _EDITORS},
    # SWE-agent's window: the output says which lines of which file it shows.
    **dict.fromkeys(("open", "goto", "scroll_up", "scroll_down"), _WINDOW),
    # `edit` and `create` are debug-gym's as well, which name the path.
    "edit": ToolEffects(writes=("path",), window=True),
    "insert": ToolEffects(writes=("path",), window=True),
    "create": ToolEffects(writes=("path", "filename"), text="content", window=True),
    **dict.fromkeys(("find_file", "search_dir", "search_file"), _AGAIN),
    # debug-gym
    "view": ToolEffects(reads=("path",), first="start", last="end"),
    "rewrite": _WRITE,
    **dict.fromkeys(("eval", "grep", "listdir"), _AGAIN),
    # moatless
    "ViewCode": ToolEffects(
        reads=("file_path",), first="start_line", last="end_line", part=("span_ids",), each="files"
    ),
    **dict.fromkeys(("StringReplace", "AppendString", "InsertLine"), _WRITE),
    "CreateFile": ToolEffects(writes=("path",), text="file_text"),
    **dict.fromkeys(("FindClass", "FindFunction", "FindCodeSnippet", "SemanticSearch"), _AGAIN),
    **dict.fromkeys(("ListFiles", "RunTests"), _AGAIN),
    # Claude Code
    "Read": ToolEffects(reads=("file_path",), first="offset", count="limit"),
    "Write": ToolEffects(writes=("file_path",), text="content"),
    **dict.fromkeys(("Edit", "MultiEdit"), ToolEffects(writes=("file_path",))),
    **dict.fromkeys(("Glob", "Grep", "LS"), _AGAIN),
    # Names many small tool sets share.
    "read_file": ToolEffects(
        reads=("path", "file_path", "filename"), first="start_line", last="end_line"
    ),
    "write_file": ToolEffects(writes=("path", "file_path", "filename"), text="content"),
}

_FILE = re.compile(r"\[File: (?P<path>.+?) \((?P<total>\d+) lines total\)\]")
_ABOVE = re.compile(r"^\((\d+) more lines? above\)", re.MULTILINE)
_BELOW = re.compile(r"^\((\d+) more lines? below\)", re.MULTILINE)


def declared(call: Invocation, effects: Mapping[str, ToolEffects]) -> ToolEffects | None:
    """The declaration for a call, None when there is none."""
    command = call.arguments.get("command")
    if isinstance(command, str) and f"{call.name}.{command}" in effects:
        return effects[f"{call.name}.{command}"]
    return effects.get(call.name)


def effects_of(
    result: ToolResult, effects: Mapping[str, ToolEffects] = BUILTIN, directory: str = ""
) -> Effects:
    """What the call behind `result` did when it ran in `directory`."""
    nothing = Effects(directory=directory)
    if result.call is None:
        return nothing
    call = invocation(result.call)
    tool = declared(call, effects)
    if tool is None:
        return nothing
    if tool.shell:
        command = call.arguments.get(tool.shell)
        typed_into_running = str(call.arguments.get("is_input")).lower() == "true"
        if not isinstance(command, str) or typed_into_running:
            return nothing
        return shell_effects(command, directory)
    return _declared_effects(call, tool, result, directory)


def _declared_effects(
    call: Invocation, tool: ToolEffects, result: ToolResult, directory: str
) -> Effects:
    arguments = call.arguments
    shows: list[Piece] = list(_reads(tool, arguments, directory))
    writes = [resolve(path, directory) for path in _paths(tool.writes, arguments)]
    if tool.window:
        shown = _window(result.content, directory)
        shows += shown
        if tool.writes and not writes:
            writes = [read.path for read in shown]
    # What an editing tool prints of the file is a part nobody can tell.
    shows += [Read(path, None) for path in writes if not tool.window]
    if tool.repeats:
        shows.append(Run((call.name, *sorted((k, repr(v)) for k, v in arguments.items()))))
    text = arguments.get(tool.text)
    created = scripted_writes(text) if isinstance(text, str) else ()
    return Effects(
        shows=tuple(dict.fromkeys(shows)),
        writes=tuple(writes),
        scripts=tuple((path, created) for path in writes) if tool.text else (),
        directory=directory,
    )


def _paths(names: Sequence[str], arguments: Mapping[str, Any]) -> Iterator[str]:
    for name in names:
        path = arguments.get(name)
        if isinstance(path, str) and path.strip():
            yield path.strip()


def _reads(tool: ToolEffects, arguments: Mapping[str, Any], directory: str) -> Iterator[Read]:
    items = arguments.get(tool.each) if tool.each else [arguments]
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, Mapping):
            continue
        lines = None if any(item.get(name) for name in tool.part) else _lines(tool, item)
        key = () if lines else tuple((name, repr(item.get(name))) for name in tool.part)
        for path in _paths(tool.reads, item):
            yield Read(resolve(path, directory), lines, key)


def _lines(tool: ToolEffects, arguments: Mapping[str, Any]) -> Lines:
    span = arguments.get(tool.span)
    if isinstance(span, list) and len(span) == 2:
        first, last = _number(span[0]), _number(span[1])
    else:
        first, last = _number(arguments.get(tool.first)), _number(arguments.get(tool.last))
    count = _number(arguments.get(tool.count))
    start = max(1, first or 1)
    if count is not None:
        return Lines(start, start + count)
    if last is None or last < start:
        return WHOLE if start == 1 else Lines(start)
    return Lines(start, last + 1)


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _window(content: str, directory: str) -> list[Read]:
    """The part of a file an output says it shows."""
    found = _FILE.search(content)
    if found is None:
        return []
    above, below = _ABOVE.search(content), _BELOW.search(content)
    start = int(above[1]) + 1 if above else 1
    end = int(found["total"]) - int(below[1]) + 1 if below else None
    return [Read(resolve(found["path"], directory), Lines(start, end))]
