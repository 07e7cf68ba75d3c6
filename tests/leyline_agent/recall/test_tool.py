"""The tool: how it is declared, which arguments it takes, what it answers."""

import json

import pytest

from leyline_agent.recall import tool
from leyline_agent.recall.archive import EVICTED, REDACTED, Found

TOOL = {"type": "function", "function": {"name": "bash", "parameters": {}}}
THEIRS = {"name": "bash", "input_schema": {"type": "object"}}


def call(arguments, name="leyline_recall"):
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def reply(*calls, content=None):
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def test_it_is_declared_last_and_in_the_form_of_the_others():
    *others, ours = tool.declared([TOOL, TOOL])
    assert others == [TOOL, TOOL]
    assert ours["function"]["parameters"]["required"] == ["id"]
    *others, ours = tool.declared([THEIRS])
    assert others == [THEIRS]
    assert ours["input_schema"]["required"] == ["id"]
    for made in ([TOOL], [THEIRS]):
        assert not tool.clashes(made)
        assert tool.clashes(tool.declared(made))


@pytest.mark.parametrize(
    ("arguments", "id", "start"),
    [
        ('{"id": " r1 "}', "r1", 0),
        ({"id": "r1", "start": 20}, "r1", 20),
        ('{"id": "r1", "start": -3}', "r1", 0),
        ('{"id": "r1", "start": "20"}', "r1", 0),
        ('{"id": 3}', "", 0),
        ('["r1"]', "", 0),
        ("{", "", 0),
        ("", "", 0),
        (None, "", 0),
    ],
)
def test_arguments(arguments, id, start):
    (asked,) = tool.asked(reply(call(arguments), call("{}", "bash")))
    assert (asked.id, asked.start) == (id, start)


def test_a_reply_without_its_recalls():
    ours, other = call("{}"), call("{}", "bash")
    assert tool.without_recalls(reply(ours, other)) == reply(other)
    assert tool.without_recalls(reply(ours)) == {
        "role": "assistant", "content": tool.UNANSWERED,
    }  # fmt: skip
    assert tool.without_recalls(reply(ours, content="a"))["content"] == f"a\n{tool.UNANSWERED}"
    parts = [{"type": "text", "text": "a"}]
    assert tool.without_recalls(reply(ours, content=parts))["content"] == [
        *parts, {"type": "text", "text": tool.UNANSWERED},
    ]  # fmt: skip


def answer(found, id="r1", start=0, max_chars=10):
    return tool.answer(found, tool.Asked(call(json.dumps({"id": id})), id, start), max_chars)


def test_a_short_output_is_shown_as_it_was():
    parts = [{"type": "text", "text": "short"}, {"type": "image_url", "image_url": {"url": "u"}}]
    assert answer(Found("short", "p")) == "short"
    assert answer(Found(parts, "p")) == parts


def test_a_long_one_is_shown_in_parts():
    whole = "".join(chr(97 + n) for n in range(25))
    shown, start = "", 0
    while start is not None:
        told = answer(Found(whole, "p"), start=start)
        part, _, rest = told.partition("\n[")
        shown += part
        assert f"characters {start} to {start + len(part)} of 25" in rest
        start = start + 10 if f"start={start + 10}" in rest else None
    assert shown == whole
    assert "characters 99 to 99 of 25" in answer(Found(whole, "p"), start=99)


def test_why_there_is_none():
    assert "cannot be read" in answer(None, id="")
    assert "no output 'r1'" in answer(None)
    assert "no longer kept" in answer(Found(None, "p", EVICTED))
    assert "removed for good" in answer(Found(None, "p", REDACTED))


def test_a_result_names_its_call():
    assert tool.result(call("{}"), "x") == {"role": "tool", "content": "x", "tool_call_id": "c"}
    assert "tool_call_id" not in tool.result({"function": {}}, "x")
