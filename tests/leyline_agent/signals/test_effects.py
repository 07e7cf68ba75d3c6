from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leyline_agent.signals.effects import BUILTIN, ToolEffects, effects_of
from leyline_agent.signals.outputs import WHOLE, Effects, Lines, Read, Run
from leyline_agent.trajectory import ToolResult

Result = Callable[..., ToolResult]

VIEW = {"command": "view", "path": "a.py"}
CODE = {"file_path": "a.py"}


@pytest.mark.parametrize(
    ("tool", "arguments", "lines"),
    [
        ("str_replace_editor", {**VIEW}, WHOLE),
        ("str_replace_editor", {**VIEW, "view_range": None}, WHOLE),
        ("str_replace_editor", {**VIEW, "view_range": [3, 5]}, Lines(3, 6)),
        ("str_replace_editor", {**VIEW, "view_range": [3, -1]}, Lines(3)),
        ("view", {"path": "a.py"}, WHOLE),
        ("view", {"path": "a.py", "start": 3, "end": 5}, Lines(3, 6)),
        ("view", {"path": "a.py", "start": 3}, Lines(3)),
        ("view", {"path": "a.py", "start": "3", "end": "x"}, Lines(3)),
        ("Read", {"file_path": "a.py", "offset": 10, "limit": 5}, Lines(10, 15)),
        ("read_file", {"path": "a.py"}, WHOLE),
        ("ViewCode", {"files": [{**CODE, "start_line": 2, "end_line": 4}]}, Lines(2, 5)),
        ("ViewCode", {"files": [{**CODE, "span_ids": []}]}, WHOLE),
    ],
)
def test_declared_reads(result: Result, tool: str, arguments: dict[str, Any], lines: Lines) -> None:
    effects = effects_of(result("text", tool, arguments), directory="/r")
    assert effects == Effects(shows=(Read("/r/a.py", lines),), directory="/r")


def test_named_parts_of_a_file_are_told_apart_by_name(result: Result) -> None:
    def view(*names: str) -> Read:
        arguments = {"files": [{"file_path": "a.py", "span_ids": names}]}
        (piece,) = effects_of(result("", "ViewCode", arguments)).shows
        assert isinstance(piece, Read)
        return piece

    assert view("f").lines is None
    assert view("f") == view("f")
    assert view("f") != view("g")


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("str_replace_editor", {"command": "str_replace", "path": "/a.py", "old_str": "x"}),
        ("str_replace_editor", {"command": "insert", "path": "/a.py"}),
        ("str_replace_based_edit_tool", {"command": "create", "path": "/a.py"}),
        ("rewrite", {"path": "/a.py", "start": 1}),
        ("edit", {"path": "/a.py", "start": 1}),
        ("create", {"filename": "/a.py"}),
        ("StringReplace", {"path": "/a.py"}),
        ("Write", {"file_path": "/a.py"}),
    ],
)
def test_declared_writes(result: Result, tool: str, arguments: dict[str, Any]) -> None:
    assert effects_of(result("done", tool, arguments)).writes == ("/a.py",)


def test_an_editor_shows_a_part_nobody_can_tell(result: Result) -> None:
    effects = effects_of(result("snippet", "rewrite", {"path": "/a.py"}))
    assert effects.shows == (Read("/a.py", None),)


def test_a_window_names_its_lines_itself(result: Result) -> None:
    shown = "[File: /r/a.py (90 lines total)]\n(10 more lines above)\n11:x\n(60 more lines below)\n"
    assert effects_of(result(shown, "goto", {})).shows == (Read("/r/a.py", Lines(11, 31)),)
    whole = effects_of(result("[File: b.py (3 lines total)]\n1:\n", "open", {}), directory="/r")
    assert whole.shows == (Read("/r/b.py", WHOLE),)


def test_an_edit_in_a_window_writes_the_file_it_shows(result: Result) -> None:
    effects = effects_of(
        result("[File: /a.py (3 lines total)]\n1:\n", "edit", {"text": "edit 1:1"})
    )
    assert effects.writes == ("/a.py",)
    assert effects_of(result("No file open.", "edit", {"text": "edit 1:1"})).writes == ()


def test_a_created_script_is_remembered(result: Result) -> None:
    arguments = {"command": "create", "path": "/fix.py", "file_text": "open('a.py', 'w')"}
    effects = effects_of(result("created", "str_replace_editor", arguments))
    assert effects.scripts == (("/fix.py", ("a.py",)),)


def test_repeated_queries_are_told_by_their_arguments(result: Result) -> None:
    first = effects_of(result("x", "grep", {"pattern": "a", "path": None}))
    again = effects_of(result("y", "grep", {"path": None, "pattern": "a"}))
    other = effects_of(result("x", "grep", {"pattern": "b", "path": None}))
    assert first == again != other
    assert isinstance(first.shows[0], Run)


def test_shell_tools_are_read_as_shell(result: Result) -> None:
    effects = effects_of(result("x", "execute_bash", {"command": "cat a.py"}), directory="/r")
    assert effects.shows == (Read("/r/a.py"),)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("execute_bash", {"command": "C-c", "is_input": "true"}),
        ("bash", {"command": None}),
        ("bash", {}),
        ("pdb", {"command": "p x"}),
        ("str_replace_editor", {"command": "fly", "path": "/a.py"}),
        ("str_replace_editor", {"command": "view"}),
        ("ViewCode", {"files": "a.py"}),
        ("ViewCode", {"files": ["a.py", {"file_path": 3}]}),
        ("no_such_tool", {"path": "/a.py"}),
    ],
)
def test_nothing_is_guessed(result: Result, tool: str, arguments: dict[str, Any]) -> None:
    assert effects_of(result("x", tool, arguments), directory="/r") == Effects(directory="/r")


def test_a_result_without_its_call_did_nothing(result: Result) -> None:
    orphan = ToolResult(1, None, {"role": "tool", "content": "x"})
    assert effects_of(orphan) == Effects()


def test_own_declarations_beat_the_built_in_ones(result: Result) -> None:
    own = {**BUILTIN, "open_page": ToolEffects(reads=("url",)), "bash.view": ToolEffects()}
    page = effects_of(result("x", "open_page", {"url": "/p"}), own)
    assert page.shows == (Read("/p"),)
    assert effects_of(result("x", "bash", {"command": "view"}), own) == Effects()
