from __future__ import annotations

from typing import Any

import pytest

from leyline_agent.signals.invocation import Invocation, invocation
from leyline_agent.trajectory import ToolCall


def spoken(text: str) -> Invocation:
    return invocation(ToolCall(1, "", "", {"text": text}))


def test_a_native_call_is_taken_as_it_is() -> None:
    call = ToolCall(1, "c", "bash", '{"command": "ls"}')
    assert invocation(call) == ("bash", {"command": "ls"})


def test_xml_function_calls() -> None:
    text = (
        "Look:\n<function=str_replace_editor>\n<parameter=command>view</parameter>\n"
        "<parameter=path>/a.py</parameter>\n<parameter=view_range>[1, 5]</parameter>\n</function>"
    )
    arguments: dict[str, Any] = {"command": "view", "path": "/a.py", "view_range": [1, 5]}
    assert spoken(text) == ("str_replace_editor", arguments)


def test_a_parameter_that_only_looks_like_a_list_stays_text() -> None:
    text = "<function=f><parameter=x>[not json</parameter></function>"
    assert spoken(text).arguments == {"x": "[not json"}


def test_the_last_fenced_block_is_the_command() -> None:
    text = "First I thought of\n```\nls\n```\nbut now:\n```bash\ncat a.py\nls\n```"
    assert spoken(text) == ("bash", {"command": "cat a.py\nls"})


@pytest.mark.parametrize("command", ["open a.py 10", "goto 5", "edit 1:2\nx = 1\nend_of_edit"])
def test_window_commands_are_tools_of_their_own(command: str) -> None:
    called = spoken(f"```\n{command}\n```")
    assert called == (command.split()[0], {"text": command})


@pytest.mark.parametrize("text", ["I am done.", "```\n```", "```\nnever closed", ""])
def test_no_call_can_be_made_out(text: str) -> None:
    assert spoken(text) == ("", {})


def test_the_last_function_call_counts() -> None:
    text = "<function=a></function> then <function=b><parameter=x>1</parameter></function>"
    assert spoken(text) == ("b", {"x": "1"})
    assert spoken("<function=a><parameter=x>never closed") == ("", {})


def test_a_call_without_name_or_text_is_none() -> None:
    assert invocation(ToolCall(1, "", "", None)) == ("", {})


@pytest.mark.parametrize("label", ["src/calc.py", "python src/calc.py"])
def test_a_block_whose_label_ends_in_a_path_writes_that_file(label: str) -> None:
    said = f"Mended.\n````{label}\n```\nx = 1\n````\n"
    written = {"path": "src/calc.py", "content": "```\nx = 1"}
    assert spoken(said) == ("write_file", written)


@pytest.mark.parametrize("label", ["bash", "mswea_bash_command", "python:calc.py", "{.python}"])
def test_other_labels_are_of_shell(label: str) -> None:
    assert spoken(f"```{label}\nls\n```") == ("bash", {"command": "ls"})
