"""Replies whose next call is the same."""

from __future__ import annotations

import pytest

from leyline_evals.fidelity.calls import meaning


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (
            'I look.\n<tool_call>{"name": "bash", "arguments": {"a": 1, "b": 2}}</tool_call>',
            '<tool_call>\n{"arguments": {"b": 2, "a": 1}, "name": "bash"}\n</tool_call>',
        ),
        ("Now:\n```bash\nls  -l 'a b'\n```\nDone.", '```bash\nls -l "a b"  # list\n```'),
        ("```python\nx = (1)\n```", "```python\nx = 1  # one\n```"),
        ("It  is\nfine.", "It is fine."),
    ],
)
def test_the_same_call(left: str, right: str) -> None:
    assert meaning(left) == meaning(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (
            '<tool_call>{"name": "bash", "arguments": {"a": 1}}</tool_call>',
            '<tool_call>{"name": "bash", "arguments": {"a": 2}}</tool_call>',
        ),
        ("```bash\nls -l\n```", "```bash\nls -a\n```"),
        ("```python\nx = 1\n```", "```python\nx = 2\n```"),
        ("Yes.", "No."),
    ],
)
def test_another_call(left: str, right: str) -> None:
    assert meaning(left) != meaning(right)


@pytest.mark.parametrize(
    "reply",
    [
        "<tool_call>{bad}</tool_call>",
        "```python\ndef (\n```",
        "```bash\necho 'open\n```",
        "```bash\nls",
        "",
        "it's",
    ],
)
def test_what_cannot_be_parsed_is_its_words(reply: str) -> None:
    assert meaning(reply) == meaning(reply + " ")
