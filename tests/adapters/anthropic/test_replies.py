import json

import anthropic.types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_adapters.anthropic.messages import to_chat
from leyline_adapters.anthropic.replies import Assembly, events, to_completion, to_message
from leyline_agent import Session
from leyline_agent.testing.model import DeterministicModel, chunks, tool_call

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "ls"}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "cache_read_input_tokens": 6, "output_tokens": 3},
}
START = {**ANSWER, "content": [], "stop_reason": None}


def block(index, start, *deltas):
    """The events of one block; a delta is its type and what it carries."""
    yield {"type": "content_block_start", "index": index, "content_block": start}
    for kind, field, value in deltas:
        delta = {"type": f"{kind}_delta", field: value}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


STREAM = [
    {"type": "message_start", "message": START},
    {"type": "ping"},
    *block(
        0,
        {"type": "thinking"},
        ("thinking", "thinking", "h"),
        ("thinking", "thinking", "m"),
        ("signature", "signature", "c2ln"),
    ),
    *block(1, {"type": "text", "text": ""}, ("text", "text", "I "), ("text", "text", "look.")),
    *block(
        2,
        {"type": "tool_use", "id": "a", "name": "bash", "input": {}},
        ("input_json", "partial_json", ""),
        ("input_json", "partial_json", '{"comm'),
        ("input_json", "partial_json", 'and": "ls"}'),
    ),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
]


def test_an_answer_as_a_completion():
    completion = to_completion(ANSWER)
    (choice,) = completion["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "bash", "arguments": '{"command": "ls"}'}
    assert to_completion(anthropic.types.Message.model_validate(ANSWER)) == completion


@pytest.mark.parametrize("other", [None, "text", {"type": "error"}, {"choices": []}])
def test_what_is_no_answer(other):
    assert to_completion(other) is None


def test_a_stream_is_the_answer_it_makes():
    assembly = Assembly()
    for event in STREAM[:-2]:
        assembly.add(event)
    assert not assembly.finished
    assembly.add(STREAM[-2])
    assert assembly.finished
    assert not assembly.ended
    assembly.add(STREAM[-1])
    assert assembly.ended
    assert assembly.response() == to_completion(ANSWER)


def test_the_last_event_counts_the_whole_answer():
    """It may leave counts out, or tell them anew."""
    assembly = Assembly()
    for event in STREAM[:-2]:
        assembly.add(event)
    usage = {"output_tokens": 9, "cache_read_input_tokens": 7, "input_tokens": None}
    assembly.add({**STREAM[-2], "usage": usage})
    found = assembly.response()["usage"]
    assert found == {"input_tokens": 1, "cache_read_input_tokens": 7, "output_tokens": 9}


def test_a_stream_that_broke():
    assembly = Assembly()
    assert assembly.response() is None
    for event in STREAM[:8]:
        assembly.add(event)
    assembly.add({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert assembly.error == "Overloaded"
    assert not assembly.finished


def test_input_that_was_cut_off_is_kept():
    assembly = Assembly()
    for event in [*STREAM[:14], *STREAM[15:]]:
        assembly.add(event)
    (call,) = assembly.response()["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"arguments": '{"comm'}


@pytest.mark.parametrize("answer", [ANSWER, anthropic.types.Message.model_validate(ANSWER)])
def test_a_session_takes_an_answer_as_it_is(answer):
    """What the harness sends back then is the reply that is known, thinking or not."""
    session = Session()
    ask = {"role": "user", "content": "Hello."}
    turn = session.begin([ask])
    receipt = turn.finish(answer)
    assert (receipt.prompt, receipt.reused_exact, receipt.completion) == (7, 6, 3)
    content = [ANSWER["content"][1], ANSWER["content"][2]]
    result = {"type": "tool_result", "tool_use_id": "a", "content": "x"}
    back = [
        ask,
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    assert session.shared(to_chat({"messages": back}).messages) == 2


def test_completions_as_answers():
    model = DeterministicModel("Fine.", tool_call("bash", content="I look.", command="ls"))
    said, called = (model.complete({"messages": [{"role": "user", "content": "?"}]}) for _ in "ab")
    assert to_message(said)["content"] == [{"type": "text", "text": "Fine."}]
    assert to_message(said)["stop_reason"] == "end_turn"
    message = anthropic.types.Message.model_validate(to_message(called))
    assert message.stop_reason == "tool_use"
    assert message.content[1].input == {"command": "ls"}
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens == 5


def test_chunks_as_events():
    """Put together by our own assembly they are the completion again; the client is tested too."""

    inputs = st.lists(st.dictionaries(st.text(max_size=3), st.integers()), max_size=3)

    @settings(deadline=None)
    @given(st.text(max_size=20).filter(lambda text: text.strip() or not text), inputs)
    def holds(content, inputs):
        calls = [tool_call("f", id=f"c{i}", given=given) for i, given in enumerate(inputs)]
        message = {"role": "assistant", "content": content}
        message["tool_calls"] = [call for made in calls for call in made["tool_calls"]]
        model = DeterministicModel(message)
        made = model.complete({"messages": [{"role": "user", "content": "?"}]})
        assembly = Assembly()
        for event in events(chunks(made)):
            assembly.add(event)
        expected = to_completion(to_message(made))
        assert assembly.response()["choices"] == expected["choices"]
        assert assembly.response()["usage"].items() <= expected["usage"].items()

    holds()
