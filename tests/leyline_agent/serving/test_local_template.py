"""Rendering message by message gives what rendering the whole conversation gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.serving.local_template import is_local
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.render import ChatRenderer, Replies

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message.content | trim + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LOCAL = {
    "chatml": CHATML,
    "default system": DEFAULT_SYSTEM,
    "bos": "{{ bos_token }}" + CHATML,
    "role of the first": CHATML.replace("{{ m['role'] }}", "{{ messages[0].role }}:{{ m.role }}"),
    "raises": CHATML.replace(
        "{{ m['role'] }}", "{% if m.role == 'x' %}{{ raise_exception('x') }}{% endif %}{{ m.role }}"
    ),
    "no split": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
}
NOT_LOCAL = {
    "last": CHATML.replace("{{ m['role'] }}", "{{ m.role if loop.last else 'x' }}"),
    "neighbour": CHATML.replace("{{ m['role'] }}", "{{ messages[loop.index0 - 1].role }}"),
    "second": CHATML.replace("{{ m['role'] }}", "{{ messages[1].role }}"),
    "count": CHATML.replace("{{ m['role'] }}", "{{ messages | length }}"),
    "number": CHATML.replace("{{ m['role'] }}", "{{ loop.index }}"),
    "length of the loop": CHATML.replace("{{ m['role'] }}", "{{ loop['length'] }}"),
    "state": "{% set n = namespace(i=0) %}" + CHATML,
    "set": CHATML.replace("{{ m['role'] }}", "{% set r = m.role %}{{ r }}"),
    "date": "{{ strftime_now('%d') }}" + CHATML,
    "tools": "{{ tools }}" + CHATML,
    "chance": CHATML.replace("{{ m['role'] }}", "{{ m.role | random }}"),
    "slice": CHATML.replace("in messages", "in messages[1:]"),
    "filtered": CHATML.replace("in messages", "in messages if m.role != 'system'"),
    "two loops": CHATML + CHATML,
    "loop inside": "{% if true %}" + CHATML + "{% endif %}",
    "loop in loop": CHATML.replace("{{ m['role'] }}", "{% for c in m.role %}{{ c }}{% endfor %}"),
    "first outside of the loop": "{{ loop.first }}" + CHATML,
    "no loop": "{{ messages[0].content }}",
    "broken": "{% for m in messages %}",
}

texts = st.one_of(
    st.sampled_from(["", " ", "\n", "a<|im_end|>b", "\ue000reply\ue001", "the file"]),
    st.text(max_size=12),
)
conversations = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant", "tool"]),
        texts,
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("template", LOCAL.values(), ids=LOCAL)
def test_local_templates_are_found_out(template: str) -> None:
    assert is_local(template)


@pytest.mark.parametrize("template", NOT_LOCAL.values(), ids=NOT_LOCAL)
def test_any_other_is_not_trusted(template: str) -> None:
    assert not is_local(template)


@pytest.fixture(scope="module")
def renderers(tiny_model: LoadedModel) -> dict[str, tuple[ChatRenderer, ChatRenderer]]:
    """For each template a renderer as it is, and one that renders whole conversations only."""
    return {name: (_renderer(tiny_model, t), _whole(tiny_model, t)) for name, t in LOCAL.items()}


def _renderer(model: LoadedModel, template: str) -> ChatRenderer:
    import copy

    tokenizer: Any = copy.copy(model.tokenizer)
    tokenizer.chat_template = template
    return ChatRenderer(tokenizer)


def _whole(model: LoadedModel, template: str) -> ChatRenderer:
    return _renderer(model, template + "{# #}{% set whole = 1 %}")


@settings(deadline=None, max_examples=60)
@given(messages=conversations, name=st.sampled_from(sorted(LOCAL)), sampled=st.booleans())
def test_the_same_ids_as_the_whole(
    renderers: dict[str, tuple[ChatRenderer, ChatRenderer]],
    messages: list[dict[str, Any]],
    name: str,
    sampled: bool,
) -> None:
    by_message, whole = renderers[name]
    replies = Replies()
    if sampled:
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                replies.keep(message, [number, 5, 7])
    for _ in range(2):  # found, then remembered
        found = by_message.render(messages, (), replies)
        assert found == whole.render(messages, (), replies)


def test_declared_tools_shift_no_reply(
    renderers: dict[str, tuple[ChatRenderer, ChatRenderer]],
) -> None:
    by_message, whole = renderers["chatml"]
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    reply = {"role": "assistant", "content": "I look."}
    replies = Replies()
    replies.keep(reply, [9, 9, 9])
    messages = [{"role": "user", "content": "Look."}, reply, {"role": "user", "content": "And?"}]
    found = by_message.render(messages, tools, replies)
    assert found == whole.render(messages, tools, replies)
    assert [9, 9, 9] == [token for token in found if token == 9][-3:]


def test_what_is_known_is_not_rendered_again(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = _renderer(tiny_model, CHATML)
    messages = [{"role": "user", "content": f"message {i}"} for i in range(20)]
    before = renderer.render(messages)
    calls: list[int] = []
    apply = type(renderer.tokenizer).apply_chat_template

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        calls.append(1)
        return apply(self, *args, **options)

    monkeypatch.setattr(type(renderer.tokenizer), "apply_chat_template", counted)
    assert renderer.render(messages) == before
    assert calls == []
    renderer.render([*messages, {"role": "assistant", "content": "new"}])
    assert 0 < len(calls) <= 2


def test_forgetting_leaves_no_text_behind(tiny_model: LoadedModel) -> None:
    from leyline_agent.serving import tool_calls

    renderer = _renderer(tiny_model, CHATML)
    call = {"id": "1", "function": {"name": "bash", "arguments": '{"command": "secret"}'}}
    messages = [
        {"role": "user", "content": "secret"},
        {"role": "assistant", "content": "secret", "tool_calls": [call]},
    ]
    before = renderer.render(messages)
    assert tool_calls._known_call.cache_info().currsize > 0
    renderer.forget_texts()
    assert tool_calls._known_call.cache_info().currsize == 0
    assert renderer._local is not None
    assert renderer._local._next.cache_info().currsize == 0
    assert renderer._encode.cache_info().currsize == 0
    assert renderer.render(messages) == before
