"""Messages for chat templates that know nothing of tools."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.serving.tool_calls import parse_reply, plain_messages

TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}
    for name in ("bash", "read_file")
]


def calls_of(reply):
    return [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in reply.tool_calls
    ]


def call(name="bash", arguments='{"command": "ls"}', call_id="c1"):
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


class TestPlainMessages:
    def test_plain_ones_stay(self):
        messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
        assert plain_messages(messages, []) == messages

    def test_null_content(self):
        assert plain_messages([{"role": "assistant", "content": None}], []) == [
            {"role": "assistant", "content": ""}
        ]

    def test_missing_content(self):
        assert plain_messages([{"role": "user"}], []) == [{"role": "user", "content": ""}]

    def test_calls_become_blocks(self):
        message = {
            "role": "assistant",
            "content": "Look:",
            "tool_calls": [call(), call("read_file", {"path": "é"}, "c2")],
        }
        assert plain_messages([message], [])[0]["content"] == (
            'Look:\n<tool_call>\n{"name": "bash", "arguments": {"command": "ls"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "read_file", "arguments": {"path": "é"}}\n</tool_call>'
        )

    def test_calls_without_text(self):
        message = {"role": "assistant", "content": None, "tool_calls": [call()]}
        assert plain_messages([message], [])[0]["content"].startswith("<tool_call>\n")

    def test_arguments_as_sent(self):
        message = {"role": "assistant", "tool_calls": [call(arguments='{"a":1,  "b":2}')]}
        assert '"arguments": {"a":1,  "b":2}}' in plain_messages([message], [])[0]["content"]

    @pytest.mark.parametrize("arguments", ["{broken", "[1]", '"text"'])
    def test_malformed_arguments_are_shown(self, arguments):
        message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
        shown = plain_messages([message], [])[0]["content"]
        assert f'"arguments": {json.dumps(arguments)}}}' in shown

    @pytest.mark.parametrize("arguments", ["", None, {}])
    def test_no_arguments(self, arguments):
        message = {"role": "assistant", "tool_calls": [call(arguments=arguments)]}
        assert '"arguments": {}}' in plain_messages([message], [])[0]["content"]

    def test_the_old_function_call(self):
        message = {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}
        shown = plain_messages([message], [])[0]["content"]
        assert shown == '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'

    @pytest.mark.parametrize("role", ["tool", "function"])
    def test_results_become_user_messages(self, role):
        message = {"role": role, "tool_call_id": "c1", "content": "a\nb"}
        assert plain_messages([message], []) == [
            {"role": "user", "content": "<tool_response>\na\nb\n</tool_response>"}
        ]

    def test_parts(self):
        content = [
            {"type": "text", "text": "see "},
            {"type": "image_url", "image_url": {"url": "data:..."}},
            {"type": "input_audio", "input_audio": {}},
            " and ",
            {"type": "tool_result", "content": [{"type": "text", "text": "this"}]},
        ]
        assert plain_messages([{"role": "user", "content": content}], []) == [
            {"role": "user", "content": "see [image][input_audio] and this"}
        ]

    def test_developer_is_system(self):
        assert plain_messages([{"role": "developer", "content": "x"}], []) == [
            {"role": "system", "content": "x"}
        ]

    def test_unknown_roles_are_told(self):
        assert plain_messages([{"role": "critic", "content": "no"}], []) == [
            {"role": "user", "content": "[critic]\nno"}
        ]

    def test_tools_stand_in_the_system_message(self):
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
        [system, user] = plain_messages(messages, TOOLS)
        assert system["content"].startswith("Be brief.\n\n# Tools\n")
        for tool in TOOLS:
            assert json.dumps(tool) in system["content"].split("\n")
        assert user == messages[1]

    def test_tools_without_a_system_message(self):
        [system, user] = plain_messages([{"role": "user", "content": "hi"}], TOOLS)
        assert system["role"] == "system"
        assert system["content"].startswith("# Tools\n")
        assert user["content"] == "hi"

    def test_tools_without_messages(self):
        assert [m["role"] for m in plain_messages([], TOOLS)] == ["system"]

    def test_messages_are_not_changed(self):
        messages = [
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": None, "tool_calls": [call()]},
        ]
        before = json.dumps(messages)
        plain_messages(messages, TOOLS)
        assert json.dumps(messages) == before

    def test_what_is_shown_is_what_would_be_read(self):
        message = {
            "role": "assistant",
            "content": "Both:",
            "tool_calls": [call(), call("read_file", '{"path": "</tool_call>"}', "c2")],
        }
        reply = parse_reply(plain_messages([message], [])[0]["content"], TOOLS)
        assert reply.content == "Both:"
        assert calls_of(reply) == [
            ("bash", {"command": "ls"}),
            ("read_file", {"path": "</tool_call>"}),
        ]


contents = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.lists(st.builds(lambda t: {"type": "text", "text": t}, st.text(max_size=4)), max_size=2),
)
any_messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "x"]),
            "content": contents,
        },
        optional={"tool_calls": st.lists(st.just(call()), max_size=2)},
    ),
    max_size=6,
)


@given(any_messages)
@settings(deadline=None)
def test_every_message_depends_on_itself_alone(messages):
    alone = [plain_messages([message], [])[0] for message in messages]
    assert plain_messages(messages, []) == alone
    with_tools = plain_messages(messages, TOOLS)
    declared_in = 1 if alone and alone[0]["role"] == "system" else 0
    assert with_tools[1:] == alone[declared_in:]
    assert all(set(m) == {"role", "content"} and isinstance(m["content"], str) for m in alone)
