import copy
import json

import anthropic.types
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyline_adapters.anthropic.messages import PLACEHOLDER, to_chat
from leyline_agent import Edit, Session, TrajectoryError, message
from leyline_agent.edit import apply, sift

EXAMPLES = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MARK = {"type": "ephemeral"}


def use(id, **given):
    return {"type": "tool_use", "id": id, "name": "bash", "input": given}


def result(id, content, **more):
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def text(words, **more):
    return {"type": "text", "text": words, **more}


@pytest.fixture
def body():
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    return {
        "model": "m",
        "max_tokens": 9,
        "system": [text("You fix bugs.", cache_control=MARK)],
        "tools": [{"name": "bash", "input_schema": {"type": "object"}, "cache_control": MARK}],
        "messages": [
            {"role": "user", "content": "Fix it."},
            {"role": "assistant", "content": [thinking, text("I look."), use("a", n=1), use("b")]},
            {
                "role": "user",
                "content": [
                    result("a", "A" * 90),
                    result("b", [text("B", cache_control=MARK)]),
                    text("Hurry."),
                ],
            },
            {"role": "assistant", "content": [use("c")]},
            {"role": "user", "content": [result("c", "C", cache_control=MARK, is_error=True)]},
        ],
    }


def test_as_chat(body):
    conversation = to_chat(body)
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user", "assistant", "tool"]
    calls = conversation.messages[2]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"n": 1}, {}]
    assert conversation.messages[4]["content"] == "B"
    assert conversation.messages[7]["is_error"] is True
    assert conversation.tools[0]["function"]["name"] == "bash"


def test_what_is_not_edited_is_the_callers_own(body):
    before = copy.deepcopy(body)
    conversation = to_chat(body)
    back = conversation.restored(conversation.messages, conversation.tools)
    assert back == before
    assert all(a is b for a, b in zip(back["messages"], body["messages"], strict=True))
    assert back["tools"][0] is body["tools"][0]


def test_an_edited_result_keeps_everything_but_its_content(body, refusal):
    conversation = to_chat(body)
    edited = list(conversation.messages)
    edited[3] = {**edited[3], "content": "[cleared]"}
    edited[7] = {**edited[7], "content": "[cleared]"}
    back = conversation.restored(edited)
    blocks = back["messages"][2]["content"]
    assert blocks[0] == result("a", "[cleared]")
    assert blocks[1] is body["messages"][2]["content"][1]
    assert back["messages"][4]["content"] == [
        result("c", "[cleared]", cache_control=MARK, is_error=True)
    ]
    assert back["messages"][1] is body["messages"][1]
    assert not refusal(back)


def test_a_removed_pair_removes_both_blocks(body, refusal):
    conversation = to_chat(body)
    edited = list(conversation.messages)
    edited[2] = {**edited[2], "tool_calls": edited[2]["tool_calls"][:1]}
    del edited[4]
    back = conversation.restored(edited)
    kinds = [block["type"] for block in back["messages"][1]["content"]]
    assert kinds == ["thinking", "text", "tool_use"]
    assert [block["type"] for block in back["messages"][2]["content"]] == ["tool_result", "text"]
    assert not refusal(back)


def test_a_removed_turn_leaves_no_neighbours_of_one_role(body, refusal, marks):
    conversation = to_chat(body)
    edited = [m for i, m in enumerate(conversation.messages) if i not in (2, 3, 4)]
    back = conversation.restored(edited)
    assert back["messages"][0]["content"] == [text("Fix it.", cache_control=MARK), text("Hurry.")]
    assert len(marks(back)) == len(marks(body)) == 3
    assert not refusal(back)


def test_a_breakpoint_of_an_edited_block_inside_a_result_goes_to_the_result(body):
    conversation = to_chat(body)
    edited = list(conversation.messages)
    edited[4] = {**edited[4], "content": "short"}
    back = conversation.restored(edited)
    assert back["messages"][2]["content"][1] == result("b", "short", cache_control=MARK)
    assert body["messages"][2]["content"][1]["content"][0]["cache_control"] == MARK


def test_cleared_inputs(body):
    conversation = to_chat(body)
    edited = list(conversation.messages)
    bare = copy.deepcopy(edited[2])
    bare["tool_calls"][0]["function"]["arguments"] = "{}"
    edited[2] = bare
    blocks = conversation.restored(edited)["messages"][1]["content"]
    assert blocks[2] == use("a")
    assert blocks[:2] == body["messages"][1]["content"][:2]


def test_a_message_put_behind_results_joins_them(body, refusal):
    conversation = to_chat(body)
    update = {"role": "user", "content": "STATE UPDATE"}
    back = conversation.restored([*conversation.messages, update])
    last = body["messages"][-1]["content"][0]
    assert back["messages"][-1]["content"] == [last, text("STATE UPDATE")]
    assert not refusal(back)


def test_an_edited_system_prompt(body):
    conversation = to_chat(body)
    first = {"role": "system", "content": "You write tests."}
    back = conversation.restored([first, *conversation.messages[1:]])
    assert back["system"] == [text("You write tests.", cache_control=MARK)]
    assert back["messages"] == body["messages"]
    gone = conversation.restored(conversation.messages[1:])
    assert "system" not in gone
    added = to_chat({"messages": body["messages"]})
    assert added.restored([first, *added.messages])["system"] == "You write tests."


def test_a_conversation_without_its_opening_begins_with_the_user(body, refusal):
    conversation = to_chat(body)
    back = conversation.restored([conversation.messages[0], *conversation.messages[2:]])
    assert back["messages"][0] == {"role": "user", "content": PLACEHOLDER}
    assert not refusal(back)


def test_a_message_of_which_only_thinking_is_left_is_dropped(body, refusal):
    said = {**body["messages"][1], "content": body["messages"][1]["content"][:2]}
    given = {**body, "messages": [body["messages"][0], said, {"role": "user", "content": "Go on."}]}
    conversation = to_chat(given)
    edited = [*conversation.messages]
    edited[2] = {**edited[2], "content": ""}
    back = conversation.restored(edited)
    assert back["messages"] == [{"role": "user", "content": [text("Fix it."), text("Go on.")]}]
    assert not refusal(back)


def test_images_there_and_back(refusal):
    image = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"},
    }
    body = {"messages": [{"role": "user", "content": [image, text("What is it?")]}]}
    conversation = to_chat(body)
    url = conversation.messages[0]["content"][0]["image_url"]["url"]
    assert url == "data:image/png;base64,QUJD"
    asked = {
        **conversation.messages[0],
        "content": [{"type": "image_url", "image_url": url}, "Who?"],
    }
    assert conversation.restored([asked])["messages"][0]["content"] == [image, text("Who?")]


def test_arguments_that_are_no_object_are_kept():
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "[1"}}
    conversation = to_chat({"messages": [{"role": "user", "content": "Hello."}]})
    new = {"role": "assistant", "content": None, "tool_calls": [call]}
    back = conversation.restored([*conversation.messages, new])
    assert back["messages"][-1]["content"][0]["input"] == {"arguments": "[1"}


def test_the_clients_own_objects_as_blocks(refusal):
    block = anthropic.types.ToolUseBlock(
        type="tool_use", id="a", name="bash", input={"command": "ls"}
    )
    words = anthropic.types.TextBlock(type="text", text="I look.")
    body = {
        "messages": [
            {"role": "user", "content": "Fix it."},
            {"role": "assistant", "content": [words, block]},
            {"role": "user", "content": [result("a", "x" * 90)]},
        ]
    }
    conversation = to_chat(body)
    assert conversation.messages[1]["content"] == "I look."
    back = conversation.restored(conversation.messages)
    assert back["messages"][1] is body["messages"][1]
    bare = copy.deepcopy(conversation.messages)
    bare[1]["tool_calls"][0]["function"]["arguments"] = "{}"
    back = conversation.restored(bare)
    assert back["messages"][1]["content"][0] is words
    assert back["messages"][1]["content"][1]["input"] == {}


def test_a_tool_that_was_added(body):
    conversation = to_chat(body)
    function = {"name": "leyline_recall", "description": "d", "parameters": {"type": "object"}}
    tools = [*conversation.tools, {"type": "function", "function": function}]
    back = conversation.restored(conversation.messages, tools)
    assert back["tools"][0] is body["tools"][0]
    assert back["tools"][1] == {
        "name": "leyline_recall", "description": "d", "input_schema": {"type": "object"}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "problem"),
    [({"role": "robot", "content": ""}, "role 'robot'"), ({"role": "user", "content": [3]}, "3")],
)
def test_what_is_no_message_is_told(message, problem):
    with pytest.raises(TrajectoryError):
        to_chat({"messages": [message]})


def test_edits_committed_in_earlier_turns(body, stub_results, refusal):
    """The session's own copies stand for those messages: they are found by their calls' ids."""
    session = Session(stub_results)
    for count in (3, 5):
        given = {**body, "messages": copy.deepcopy(body["messages"][:count])}
        conversation = to_chat(given)
        turn = session.begin(conversation.messages, conversation.tools)
        back = conversation.restored(turn.request["messages"], turn.request["tools"])
        turn.finish("Well.")
        assert not refusal(back)
    assert back["messages"][2]["content"][0] == result("a", "stub")
    assert back["messages"][-1] is given["messages"][-1]


def test_anything_else_is_told_as_such():
    kinds = st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image", "other", 7])
    leaf = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | kinds
    keys = st.sampled_from(["role", "content", "type", "text", "id", "input", "source", "name"])
    anything = st.recursive(
        leaf | st.sampled_from(["user", "assistant", "system"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    )

    roles = st.sampled_from(["user", "assistant", "system"])
    blocks = st.dictionaries(keys, anything, max_size=5).flatmap(
        lambda block: kinds.map(lambda kind: {**block, "type": kind})
    )
    message = st.fixed_dictionaries({"role": roles, "content": anything | st.lists(blocks)})

    @EXAMPLES
    @given(
        st.fixed_dictionaries(
            {"messages": st.lists(message, max_size=4) | anything},
            optional={"system": anything, "tools": anything},
        )
    )
    def holds(body):
        try:
            conversation = to_chat(body)
        except TrajectoryError:
            return
        conversation.restored(conversation.messages, conversation.tools)

    holds()


# Any conversation, any edit


def test_any_conversation_there_and_back(conversations, refusal):
    @EXAMPLES
    @given(conversations)
    def holds(body):
        assert not refusal(body)
        before = copy.deepcopy(body)
        conversation = to_chat(body)
        back = conversation.restored(conversation.messages, conversation.tools)
        assert json.dumps(back) == json.dumps(before) == json.dumps(body)

    holds()


def test_any_legal_edit_gives_what_the_api_takes(conversations, refusal, marks):
    new = st.sampled_from(
        [
            (),
            ({"role": "user", "content": "STATE UPDATE"},),
            ({"role": "assistant", "content": "Earlier I looked."},),
            ({"role": "assistant", "content": ""}, {"role": "user", "content": " "}),
        ]
    )

    def edits(data, messages):
        found = []
        for index, old in enumerate(messages):
            if data.draw(st.integers(0, 3)) == 0:
                end = min(index + data.draw(st.integers(0, 4)), len(messages))
                found.append(Edit(index, end, data.draw(new)))
            elif data.draw(st.integers(0, 3)) == 0:
                changed = {**old, "content": data.draw(st.sampled_from(["stub", "", None]))}
                found.append(Edit(index, index + 1, (changed,)))
        found = [edit for edit in found if edit.start < edit.end or edit.replacement]
        return sift(found, messages)[0]

    def said(messages):
        """Everything the model reads of messages, without their seams."""
        texts = "".join(message.text(m) for m in messages).replace(PLACEHOLDER, "")
        calls = [call["id"] for m in messages for call in m.get("tool_calls") or ()]
        answers = [m["tool_call_id"] for m in messages if m["role"] == "tool"]
        return "".join(texts.split()), calls, answers

    @EXAMPLES
    @given(conversations, st.data())
    def holds(body, data):
        before = copy.deepcopy(body)
        conversation = to_chat(body)
        after = apply(edits(data, conversation.messages), conversation.messages)
        if not after or after[-1]["role"] == "assistant":
            return  # What the harness said last is gone: no request.
        back = conversation.restored(after)
        assert not refusal(back)
        assert len(marks(back)) <= len(marks(body))
        assert body == before
        after.sort(key=lambda m: m["role"] != "system")  # The API has it in front of all others.
        assert said(to_chat(back).messages) == said(after)

    holds()
