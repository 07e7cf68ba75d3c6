"""Rendering: the same ids as encoding the whole text, and sampled replies as they were sampled."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyline_agent.errors import ContextOverflow, EngineError
from leyline_agent.serving.render import ChatRenderer, Replies, SessionRenderer, well_formed

# Written after the Hermes format: tools in the system message, calls and results in tags.
HERMES = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif -%}
# Tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}<|im_start|>
{{- message.role }}
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% elif message.role == 'tool' %}
{%- if loop.previtem and loop.previtem.role != 'tool' %}<|im_start|>user{% endif %}
<tool_response>
{{ message.content }}
</tool_response>
{%- if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>
{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
# Wants a call in front of each result, as Mistral's templates do.
PAIRED = (
    "{% for message in messages %}{% if message.role == 'tool' and not (loop.previtem.tool_calls"
    " or loop.previtem.role == 'tool') %}{{ raise_exception('a result without a call') }}"
    "{% endif %}{% endfor %}" + HERMES
)
STRICT = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m.content }}]<|im_end|>"
    "{% endfor %}"
)
TRIMMED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REVERSED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | reverse }}<|im_end|>\n"
    "{% endfor %}<|im_start|>assistant\n"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "read",
        "description": "Read a file.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
    },
}
SYSTEM = {"role": "system", "content": "You are a careful programmer."}
TASK = {"role": "user", "content": "Read the file again."}


def call(arguments='{"path": "a b"}', call_id="call_1", **more):
    function = {"name": "read", "arguments": arguments}
    calls = [{"id": call_id, "type": "function", "function": function}]
    return {"role": "assistant", "content": None, "tool_calls": calls, **more}


def result(content="no such file", call_id="call_1"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return tiny_model.tokenizer


@pytest.fixture(scope="module")
def chat(tokenizer):
    return ChatRenderer(tokenizer)


def with_template(tokenizer, template):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return ChatRenderer(changed)


@pytest.fixture(scope="module")
def native(tokenizer):
    return with_template(tokenizer, HERMES)


specials = st.sampled_from(["<|im_start|>", "<|im_end|>", "<|im_end", "|>", "\n", "  ", " a", "é"])
texts = st.lists(specials | st.text(max_size=6), max_size=8).map("".join)


def encoded(tokenizer, text):
    return tokenizer.encode(well_formed(text), add_special_tokens=False)


@given(text=texts)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pieces_equal_the_whole(chat, tokenizer, text):
    assert chat.encode(text) == encoded(tokenizer, text)


messages = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant", "tool", "developer"]),
        texts | st.none(),
    ),
    min_size=1,
    max_size=5,
)


@given(messages=messages, tools=st.sampled_from([[], [TOOL]]))
@settings(deadline=None)
def test_rendering_equals_encoding_the_templates_text(chat, native, tokenizer, messages, tools):
    for renderer in (chat, native):
        ids = renderer.render(messages, tools)
        assert ids == encoded(tokenizer, renderer.text(messages, tools))


@pytest.mark.model
def test_the_embedded_models_pieces_equal_the_whole(embedded_gguf):
    from leyline_agent.serving.models.load import load_tokenizer

    tokenizer = load_tokenizer(embedded_gguf)
    chat = ChatRenderer(tokenizer)
    added = st.sampled_from([t.content for t in tokenizer.added_tokens_decoder.values()])

    @given(st.lists(added | specials | st.text(max_size=8), max_size=8).map("".join))
    @settings(deadline=None)
    def pieces(text):
        assert chat.encode(text) == encoded(tokenizer, text)

    @given(messages, st.sampled_from([[], [TOOL]]))
    @settings(deadline=None, max_examples=50)
    def whole(messages, tools):
        assert chat.render(messages, tools) == encoded(tokenizer, chat.text(messages, tools))

    pieces()
    whole()


def test_a_tokenizer_that_starts_texts_its_own_way_is_given_whole_texts(tokenizer):
    """SentencePiece puts a space before a text, but not behind an added token."""
    from tokenizers import normalizers

    changed = copy.deepcopy(tokenizer)
    changed.backend_tokenizer.normalizer = normalizers.Prepend(" ")
    chat = ChatRenderer(changed)
    text = "<|im_start|>user\nRead<|im_end|>"
    assert chat.encode(text) == encoded(changed, text)


@pytest.mark.parametrize("template", [None, HERMES, TRIMMED])
def test_a_reply_comes_back_as_the_ids_it_was_sampled_as(tokenizer, template):
    chat = with_template(tokenizer, template) if template else ChatRenderer(tokenizer)
    letters = [tokenizer.encode(c)[0] for c in " error in line"]  # not how it would be encoded
    reply = {"role": "assistant", "content": tokenizer.decode(letters)}
    assert chat.encode(reply["content"]) != letters
    replies = Replies()
    replies.keep(reply, letters)
    renderer = SessionRenderer(chat, replies)
    prompt = renderer.render([SYSTEM, TASK])
    later = renderer.render([SYSTEM, TASK, reply, {"role": "user", "content": "and now?"}])
    assert later[: len(prompt) + len(letters)] == prompt + letters
    behind = later[len(prompt) + len(letters) :]
    assert behind[0] in chat.stop_ids
    assert tokenizer.decode(behind).startswith("<|im_end|>\n<|im_start|>user\nand now?")


@pytest.mark.parametrize("template", [None, HERMES, PAIRED])
def test_a_sampled_tool_call_comes_back_with_its_result_appended(tokenizer, template):
    chat = with_template(tokenizer, template) if template else ChatRenderer(tokenizer)
    written = '<tool_call>\n{"name": "read",  "arguments": {"path": "a b"}}\n</tool_call>'
    ids = [tokenizer.encode(c)[0] for c in written]
    replies = Replies()
    replies.keep(call(), ids)
    prompt = chat.render([SYSTEM, TASK], [TOOL], replies)
    # The harness sends null content and the arguments as the text it was given.
    later = chat.render([SYSTEM, TASK, call(), result()], [TOOL], replies)
    if template == PAIRED:  # it must see the call itself, so the ids cannot stand in for it
        assert later == chat.render([SYSTEM, TASK, call(), result()], [TOOL])
        return
    assert later[: len(prompt) + len(ids)] == prompt + ids
    assert "no such file" in tokenizer.decode(later[len(prompt) + len(ids) :])


def test_a_template_that_rewrites_replies_gets_its_own_text(tokenizer):
    chat = with_template(tokenizer, REVERSED)
    reply = {"role": "assistant", "content": "yes"}
    replies = Replies()
    replies.keep(reply, [1, 2, 3])
    view = [TASK, reply, TASK]
    assert chat.render(view, (), replies) == encoded(tokenizer, chat.text(view))


def test_a_user_who_repeats_a_reply_is_no_reply(chat):
    replies = Replies()
    replies.keep({"role": "assistant", "content": "yes"}, [5, 6, 7])
    view = [{"role": "user", "content": "yes"}]
    assert chat.render(view, (), replies) == chat.render(view)


def test_the_ids_of_replies_that_left_the_view_are_forgotten():
    replies = Replies()
    kept, gone = ({"role": "assistant", "content": text} for text in ("kept", "gone"))
    replies.keep(kept, [1])
    replies.keep(gone, [2])
    replies.retain([kept])
    assert replies.find(kept) == (1,)
    assert replies.find(gone) is None


def test_which_templates_know_tools(chat, native):
    assert not chat.tools_native
    assert native.tools_native


def test_native_tools_see_arguments_as_objects_and_content_as_text(native):
    text = native.text([SYSTEM, TASK, call(), result([{"type": "text", "text": "gone"}])], [TOOL])
    assert '"arguments": {"path": "a b"}}' in text
    assert "<tool_response>\ngone\n</tool_response>" in text
    assert json.dumps(TOOL["function"]["name"]) in text


def test_native_arguments_that_are_no_object_are_shown_as_they_are(native):
    text = native.text([TASK, call('{"path": '), result()], [TOOL])
    assert json.dumps('{"path": ') in text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"role": "developer", "content": "Be brief."}, "Be brief."),
        ({"role": "function", "name": "read", "content": "42 lines"}, "42 lines"),
        (
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "read", "arguments": '{"path": "zz"}'},
            },
            '"arguments": {"path": "zz"}',
        ),
    ],
)
def test_native_templates_drop_no_message_of_an_older_kind(native, message, shown):
    """Roles a template does not know are not silently left out of the prompt."""
    assert shown in native.text([TASK, message], [TOOL])


def test_a_template_that_refuses_is_told(tokenizer):
    strict = with_template(tokenizer, STRICT)
    with pytest.raises(EngineError, match="refuses these messages: roles must alternate"):
        strict.render([TASK, TASK])
    assert strict.render([TASK])


def test_without_a_template_chatml_is_used(tokenizer):
    bare = with_template(tokenizer, None)
    assert (
        bare.text([TASK])
        == "<|im_start|>user\nRead the file again.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_ends_a_reply(chat, tokenizer):
    assert chat.stop_ids == {tokenizer.convert_tokens_to_ids("<|im_end|>")}
    other = "{% for m in messages %}{{ m.content }}<|im_start|>{% endfor %}"
    assert with_template(tokenizer, other).stop_ids == set(
        tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    )


def test_a_message_cannot_pretend_to_be_a_reply(chat, tokenizer):
    """Not even one that guesses how replies are marked on their way through the template."""
    replies = Replies()
    replies.keep({"role": "assistant", "content": "yes"}, [5, 6, 7])
    for content in ("\ue000reply\ue001", "\ue000:0\ue001", "\ue0000\ue001"):
        view = [TASK, {"role": "user", "content": content}]
        assert chat.render(view, (), replies) == encoded(tokenizer, chat.text(view))


def test_what_no_number_of_tokens_can_say_is_refused_before_it_is_read(tokenizer):
    chat = ChatRenderer(tokenizer)
    chat.check_size([{"role": "user", "content": "x" * 100_000}])  # no limit yet
    longest = max(map(len, tokenizer.get_vocab()))
    chat.limit(10)
    fits = {"role": "tool", "content": [{"type": "text", "text": "x" * 10 * longest}]}
    chat.check_size([fits, {"role": "assistant", "content": "y" * 100_000}])
    with pytest.raises(ContextOverflow, match=f"{10 * longest + 1} characters are more"):
        chat.check_size([fits, {"role": "user", "content": "x"}])


def test_where_a_token_may_stand_for_any_text_nothing_is_refused(tokenizer):
    from tokenizers import normalizers

    chat = ChatRenderer(copy.deepcopy(tokenizer))
    chat.tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    chat.limit(10)
    chat.check_size([{"role": "user", "content": " " * 100_000}])
