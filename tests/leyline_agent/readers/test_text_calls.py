import time

import pytest

from leyline_agent.readers.text_calls import fenced, mini_fenced, tagged, xml


@pytest.mark.parametrize(
    ("content", "said", "command"),
    [
        ("look\n```\nls\n```", "look\n", "ls"),
        ("```\nls\n```", "", "ls"),
        ("a\n```\nls\n```\nb\n```sh\npwd\ncd\n```\nc", "a\n```\nls\n```\nb\nc", "pwd\ncd"),
        ("```python\nx = '```'\n```", "", "x = '```'"),
    ],
)
def test_fenced(content, said, command):
    assert fenced(content) == (said, "bash", {"command": command})


@pytest.mark.parametrize("content", ["", "ls", "```\nnever closed", "``` not a fence"])
def test_no_fence(content):
    assert fenced(content) is None


def test_mini_fenced_needs_exactly_one_command():
    assert mini_fenced("```mswea_bash_command\nls\n```") == ("", "bash", {"command": "ls"})
    assert mini_fenced("```json\n{}\n```\n```bash\nls\n```").arguments == {"command": "ls"}
    assert mini_fenced("```bash\nls\n```\n```bash\npwd\n```") is None
    assert mini_fenced("```\nls\n```") is None


def test_tagged():
    assert tagged("look\n<command>\nls\n</command>") == ("look", "bash", {"command": "ls"})
    assert tagged("</command> <command>") is None


def test_xml():
    content = (
        "look\n\n<function=edit>\n<parameter=path>a.py</parameter>\n"
        "<parameter=text>\nx > y\n\n</parameter>\n</function>"
    )
    assert xml(content) == ("look", "edit", {"path": "a.py", "text": "x > y\n"})
    assert xml("<function=submit>\n</function>") == ("", "submit", {})


def test_xml_cut_off_by_a_stop_word():
    assert xml("<function=f>\n<parameter=a>1</parameter>\n").arguments == {"a": "1"}
    assert xml("<function=f>\n<parameter=a>1") is None
    assert xml("<function=f") is None
    assert xml("a <function=\nb>") is None


@pytest.mark.parametrize("scan", [fenced, mini_fenced, tagged, xml])
@pytest.mark.parametrize(
    "piece", ["```x\n", "<function=a>\n", "<parameter=a>", "<command>", "</command>", "```\n"]
)
def test_scanning_hostile_text_is_linear(scan, piece):
    """A megabyte takes far under a second; what is quadratic here takes minutes."""
    text = "<function=f>" + piece * (1_000_000 // len(piece)) + "</function>"
    start = time.perf_counter()
    scan(text)
    assert time.perf_counter() - start < 5
