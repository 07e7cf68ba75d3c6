"""Formats that are chat messages already, and this project's own sets."""

import pytest

from leyline_agent.errors import TrajectoryError


def test_openai_chat(recording, shorts):
    run = recording("openai-chat")
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "List it."),
        ("assistant", None, [("a", "ls", {}), ("b", "ls", {"p": "x"})]),
        ("tool", "one", {"tool_call_id": "a"}),
        ("tool", "two", {"tool_call_id": "b", "is_error": True}),
        ("assistant", "Done.", {"reasoning_content": "easy"}),
    ]
    assert (run.id, run.resolved, run.meta) == ("demo-1", True, {"model": "some-model"})
    assert run.tools[0]["function"]["name"] == "ls"


def test_openai_chat_without_ids_and_with_legacy_functions(recording, shorts):
    run = recording(
        [
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g"}}],
            },
            {"role": "tool", "content": "1"},
            {"role": "tool", "content": "2"},
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "h", "arguments": '{"x": 1}'},
            },
            {"role": "function", "name": "h", "content": "3"},
            {"role": "assistant", "content": "done"},
            {"role": "tool", "content": "a stray remark"},
        ]
    )
    assert shorts(run)[1:] == [
        ("assistant", None, [("call_1", "f", {}), ("call_2", "g", {})]),
        ("tool", "1", {"tool_call_id": "call_1"}),
        ("tool", "2", {"tool_call_id": "call_2"}),
        ("assistant", None, [("call_3", "h", {"x": 1})]),
        ("tool", "3", {"name": "h", "tool_call_id": "call_3"}),
        ("assistant", "done"),
        ("user", "a stray remark"),
    ]


def test_openai_chat_keeps_parts_that_are_not_text(recording):
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "http://x"}},
    ]
    assert recording([{"role": "user", "content": parts}]).messages[0]["content"] == parts


def test_malformed_arguments_stay_as_they_were_sent(recording):
    call = {"id": "a", "function": {"name": "f", "arguments": '{"x": '}}
    run = recording(
        [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call]}]
    )
    assert run.trajectory().tool_calls[0].malformed
    assert run.trajectory().tool_calls[0].raw_arguments == '{"x": '


def test_anthropic_messages(recording, shorts):
    run = recording("anthropic-messages")
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "List it."),
        (
            "assistant",
            "Looking.",
            [("t1", "ls", {"p": "."}), ("t2", "ls", {})],
            {"reasoning_content": "which?"},
        ),
        ("tool", "a.py", {"tool_call_id": "t1"}),
        ("tool", "no such file", {"tool_call_id": "t2", "is_error": True}),
        ("user", "And be quick."),
        ("assistant", "Fine."),
    ]
    assert run.tools == (
        {
            "type": "function",
            "function": {"name": "ls", "description": "lists", "parameters": {"type": "object"}},
        },
    )


def test_anthropic_reply_and_images(recording, short):
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    run = recording(
        {
            "system": "You help.",
            "messages": [
                {"role": "user", "content": [{"type": "image", "source": source}, "what is it?"]}
            ],
            "response": {
                "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}],
                "usage": {"input_tokens": 3},
            },
        }
    )
    assert run.messages[1]["content"][0] == {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64,QUJD"},
    }
    assert short(run.messages[2]) == ("assistant", None, [("t", "f", {})])
    assert run.usage == ({"input_tokens": 3},)


def test_openhands_completion(recording, shorts):
    run = recording("openhands-completion")
    assert shorts(run)[2:] == [
        ("assistant", "I look.", [("c1", "execute_bash", {})]),
        ("tool", "a.py", {"name": "execute_bash", "tool_call_id": "c1"}),
        ("assistant", "Done.", [("c2", "finish", {})]),
    ]
    assert (run.id, len(run.tools), run.usage[0]["prompt_tokens"]) == ("chatcmpl-1", 1, 7)


def test_openhands_completion_prefers_native_calls(recording, sample, shorts):
    record = sample("openhands-completion")
    native = [{"role": "user", "content": "native"}]
    reply = {"choices": [{"message": {"role": "assistant", "content": "reply"}}]}
    run = recording({**record, "fncall_messages": native, "fncall_response": reply})
    assert shorts(run) == [("user", "native"), ("assistant", "reply")]


def test_recorded_set(recording, shorts):
    run = recording("recorded-set")
    assert shorts(run)[2:] == [
        ("assistant", "I look.", [("call_1", "bash", {"command": "ls\npwd"})]),
        ("tool", "OBSERVATION:\na.py", {"tool_call_id": "call_1"}),
    ]
    assert (run.id, run.resolved, run.usage) == ("run-7", False, ({"prompt_tokens": 3},))
    assert run.meta["licence"] == "MIT"


@pytest.mark.parametrize(
    ("format_name", "said", "command"),
    [
        ("sweagent.traj", "I look.\n```\nls\n```", "ls"),
        ("sweagent.traj", "I look.\n<command>\nls\n</command>", "ls"),
        ("mini-swe-agent-1", "I look.\n```bash\nls\n```", "ls"),
    ],
)
def test_recorded_sets_of_plain_text_harnesses(recording, sample, format_name, said, command):
    record = sample("recorded-set")
    record["format"] = format_name
    record["messages"][2]["content"] = said
    (call,) = recording(record).trajectory().tool_calls
    assert (call.name, call.arguments) == ("bash", {"command": command})
    assert len(recording(record).trajectory().tool_results) == 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("openai-chat", lambda r: r["messages"].append({"role": "x"}), r"messages\[6\]: role 'x'"),
        (
            "openai-chat",
            lambda r: r["messages"][0].update(content=3),
            r"messages\[0\].content: expected",
        ),
        (
            "openai-chat",
            lambda r: r["messages"][2].update(tool_calls=["a"]),
            r"tool_calls\[0\]: exp",
        ),
        ("swe-agent.0x", lambda r: r["history"][2].update(action=[]), "action: expected a string"),
        ("openhands-events", lambda r: r["history"][4].update(tool_call_metadata={}), "an object"),
        ("debug-gym", lambda r: r["log"][1].update(action="eval"), r"log\[1\].action: expected"),
    ],
)
def test_wrong_types_say_where(recording, sample, name, change, message):
    record = sample(name)
    change(record)
    with pytest.raises(TrajectoryError, match=message):
        recording(record)
