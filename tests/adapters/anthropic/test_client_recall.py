"""Recalls of the model, answered behind the back of a harness that uses Anthropic's client."""

import json
import re

import pytest

import leyline_agent as leyline
from leyline_agent.recall.tool import UNANSWERED
from leyline_agent.testing import DeterministicModel, tool_call

OPTIONS = {
    "model": "m",
    "max_tokens": 99,
    "tools": [{"name": "bash", "input_schema": {"type": "object"}}],
}
TASK = {"role": "user", "content": "Fix the bug."}
THINKING = {"type": "thinking", "thinking": "What was it?", "signature": "c2ln"}
LONG = "a line of output\n" * 60


def recall(call_id, id):
    """The model's call of the recall tool; each call has an id, and so has what is recalled."""
    made = tool_call("leyline_recall", id=call_id)
    made["tool_calls"][0]["function"]["arguments"] = json.dumps({"id": id})
    return made


def reply(messages):
    """Calls a tool twice, recalls the first output, and is done."""
    found = re.search(r'leyline_recall\("(\w+)"\)', json.dumps(messages).replace("\\", ""))
    results = sum(message["role"] == "tool" for message in messages)
    if results < 2:
        return tool_call("bash", id=f"c{results}", content="I look.")
    if results == 2:
        return {**recall("r0", found[1]), "thinking_blocks": [THINKING]}
    return "It said: " + messages[-1]["content"][:16]


def whole(client, messages):
    return client.messages.create(messages=messages, **OPTIONS)


def managed(client, messages):
    with client.messages.stream(messages=messages, **OPTIONS) as stream:
        return stream.get_final_message()


def run(call, client):
    messages = [TASK]
    while True:
        answer = call(client, messages)
        uses = [block.id for block in answer.content if block.type == "tool_use"]
        if not uses:
            return answer
        results = [{"type": "tool_result", "tool_use_id": id, "content": LONG} for id in uses]
        messages = [
            *messages,
            {"role": "assistant", "content": answer.content},
            {"role": "user", "content": results},
        ]


@pytest.mark.parametrize("call", [whole, managed])
def test_a_recall_is_not_the_harnesss(client, scripted, call):
    scripted.model = DeterministicModel(reply, repeat=True)
    policies = "truncate_older_than:n=1,max_chars=200"
    with leyline.instrument_anthropic(policies=policies, recall=True) as handle:
        answer = run(call, client)
    assert answer.content[-1].text == "It said: a line of output"
    assert answer.stop_reason == "end_turn"
    declared = [[tool["name"] for tool in request["tools"]] for request in scripted.requests]
    assert declared == [["bash", "leyline_recall"]] * 4
    asked, answered = scripted.requests[-1]["messages"][-2:]
    assert asked["content"][0] == THINKING
    assert asked["content"][-1]["name"] == "leyline_recall"
    assert answered["content"][0]["tool_use_id"] == "r0"
    (session,) = handle.sessions
    assert session.stats().recalls == 1
    spent = [scripted.model.requests[-2], scripted.model.requests[-1]]
    assert answer.usage.output_tokens > 10 * len(spent)


@pytest.mark.parametrize("call", [whole, managed])
def test_a_recall_beside_other_calls_is_taken_out(client, scripted, call):
    both = tool_call("bash", id="c9", content="I look.")
    both["tool_calls"] += recall("r9", "none")["tool_calls"]
    both["tool_calls"] += tool_call("bash", id="c8", n=2)["tool_calls"]
    scripted.model = DeterministicModel(both, "Done.")
    with leyline.instrument_anthropic(recall=True):
        answer = call(client, [TASK])
    assert [block.type for block in answer.content] == ["text", "tool_use", "tool_use"]
    assert [block.id for block in answer.content[1:]] == ["c9", "c8"]
    assert answer.stop_reason == "tool_use"


def test_no_loop_takes_silence_for_an_end(client, scripted):
    def recalls_on(messages):
        made = reply(messages)
        return made if isinstance(made, dict) else recall(f"r{len(messages)}", "r0")

    scripted.model = DeterministicModel(recalls_on, repeat=True)
    policies = "truncate_older_than:n=1,max_chars=200"
    with leyline.instrument_anthropic(policies=policies, recall=True):
        answer = run(whole, client)
    assert answer.content[-1].text == UNANSWERED
    assert answer.stop_reason == "end_turn"


@pytest.mark.parametrize("tells_all", [False, True])
@pytest.mark.parametrize("call", [whole, managed])
def test_the_usage_is_that_of_both_calls(client, scripted, call, tells_all):
    scripted.model = DeterministicModel(reply, repeat=True)
    scripted.tells_all = tells_all
    policies = "truncate_older_than:n=1,max_chars=200"
    with leyline.instrument_anthropic(policies=policies, recall=True):
        answer = run(call, client)
    for name in ("input_tokens", "output_tokens"):
        assert getattr(answer.usage, name) == sum(each[name] for each in scripted.usages[-2:])
