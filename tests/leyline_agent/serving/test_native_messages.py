"""Messages for templates that render tools themselves, and text no tokenizer takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.render import ChatRenderer, well_formed
from leyline_agent.serving.tool_calls import native_messages

# As Qwen2.5 writes them, without the extras.
NATIVE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} "
    "{{ c.function.arguments | tojson }}</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "."}'}}


def message(**more: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": [CALL], **more}


def test_arguments_become_objects_and_nothing_given_changes() -> None:
    given = message()
    [native] = native_messages([given])
    assert native["tool_calls"][0]["function"] == {"name": "ls", "arguments": {"path": "."}}
    assert native["tool_calls"][0]["id"] == "c1"
    assert native["content"] is None
    assert given == message()
    assert CALL["function"] == {"name": "ls", "arguments": '{"path": "."}'}


@pytest.mark.parametrize("arguments", ["not json", "[1]", "", None, {"path": "."}])
def test_other_arguments_stay(arguments: object) -> None:
    call = {**CALL, "function": {"name": "ls", "arguments": arguments}}
    [native] = native_messages([message(tool_calls=[call])])
    assert native["tool_calls"][0]["function"]["arguments"] == arguments


def test_content_parts_become_text() -> None:
    parts = [{"type": "text", "text": "see "}, {"type": "image_url", "image_url": {"url": "x"}}]
    [native] = native_messages([{"role": "user", "content": parts}])
    assert native == {"role": "user", "content": "see [image]"}


def test_a_native_template_shows_calls_unescaped(tiny_model: LoadedModel) -> None:
    renderer = ChatRenderer(tiny_model.tokenizer)
    assert not renderer.tools_native
    renderer.template = NATIVE
    renderer.tools_native = renderer._probe_tools()
    assert renderer.tools_native
    text = renderer.text([{"role": "user", "content": "go"}, message()])
    assert '<tool_call>ls {"path": "."}</tool_call>' in text


@given(st.text())
def test_well_formed_text_is_left_alone(text: str) -> None:
    assert well_formed(text) == text


def test_half_a_pair_is_replaced_and_a_whole_one_joined() -> None:
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("\ud83d\ude00") == "\U0001f600"
