"""mini-swe-agent's messages of both APIs as chat messages and back."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_adapters.harnesses.codec import restored
from leyline_adapters.harnesses.mini_swe_messages import MiniCodec, answered
from leyline_adapters.harnesses.native import Harness
from leyline_agent.readers.chat import tool_call

CODEC = MiniCodec()
EXTRA = {"returncode": 3, "raw_output": "long", "timestamp": 1.0}
OUTPUT = "function_call_output"
texts = st.text(max_size=20)


def response(said: str, call: str = "c1") -> dict[str, Any]:
    text = {"type": "output_text", "text": said}
    called = {"call_id": call, "name": "bash", "arguments": '{"command": "ls"}'}
    items = [
        {"type": "reasoning", "id": "r", "encrypted_content": "..."},
        {"type": "message", "role": "assistant", "content": [text]},
        {"type": "function_call", **called},
    ]
    usage = {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}}
    return {"object": "response", "output": items, "usage": usage, "extra": {"cost": 1.0}}


natives = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text, "extra": {}}, texts),
    st.builds(lambda text: {"role": "tool", "tool_call_id": "c1", "content": text}, texts),
    st.builds(
        lambda text: {"type": "function_call_output", "call_id": "c1", "output": text}, texts
    ),
    st.builds(response, texts),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(natives, min_size=1, max_size=6))
def test_what_is_not_edited_comes_back_as_the_very_object(history: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(history)
    read = [CODEC.read(native) for native in history]
    back = restored(CODEC, history, read, read)
    assert all(one is other for one, other in zip(back, history, strict=True))
    assert history == before
    assert all(isinstance(message.get("role"), str) for message in read)


def test_only_the_status_is_read_of_what_the_agent_keeps_for_itself() -> None:
    native = {"role": "tool", "tool_call_id": "c", "content": "no", "extra": EXTRA}
    assert CODEC.read(native) == {
        "role": "tool",
        "tool_call_id": "c",
        "content": "no",
        "extra": {"returncode": 3},
    }


def test_an_edited_message_keeps_what_the_agent_has_put_on_it() -> None:
    native = {"role": "tool", "tool_call_id": "c", "content": "long", "extra": EXTRA}
    edited = CODEC.edited(native, {**CODEC.read(native), "content": "stub"})
    assert edited == {**native, "content": "stub"}


def test_an_edited_item_stays_one_of_the_responses_api() -> None:
    native = {"type": "function_call_output", "call_id": "c", "output": "long", "extra": EXTRA}
    edited = CODEC.edited(native, {**CODEC.read(native), "content": "stub"})
    assert edited == {**native, "output": "stub"}


def test_a_response_keeps_its_thoughts_where_its_call_is_edited() -> None:
    native = response("I look.")
    message = CODEC.read(native)
    calls = [tool_call("c1", "bash", '{"command": ""}')]
    edited = CODEC.edited(native, {**message, "tool_calls": calls})
    assert edited["output"][:2] == native["output"][:2]
    assert edited["output"][2] == {**native["output"][2], "arguments": '{"command": ""}'}
    said = CODEC.edited(native, {**message, "content": "."})
    assert [item["type"] for item in said["output"]] == ["message", "reasoning", "function_call"]


def test_usage_is_read_in_the_words_of_either_api() -> None:
    told = answered(response("I look."))
    assert told["usage"]["prompt_tokens"] == 9
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert told["choices"][0]["message"]["tool_calls"][0]["id"] == "c1"
    whole = {"choices": [{"message": {"role": "assistant", "content": "hi"}}]}
    assert answered({"role": "assistant", "extra": {"response": whole}}) is whole
    assert answered({"role": "user", "extra": {"response": "<repr>"}}) == {"choices": []}
    assert answered({"role": "assistant", "content": "hi"})["choices"][0]["message"] == {
        "role": "assistant",
        "content": "hi",
    }


outputs = st.sampled_from(["ok", "Error: no such file", "line of output\n" * 20])
drops = st.sampled_from(["nothing", "pair", "result", "repeat"])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(outputs, drops), min_size=1, max_size=8), st.booleans())
def test_any_history_is_sent_in_pairs_and_the_same_again_when_nothing_is_new(
    steps: list[tuple[str, str]], as_responses: bool
) -> None:
    harness = Harness("mini", MiniCodec(), "truncate_older_than:n=1,max_chars=8", None, None, {})
    history: list[dict[str, Any]] = [{"role": "system", "content": "s"}]
    history.append({"role": "user", "content": "t"})
    for number, (output, drop) in enumerate(steps):
        history += step(f"c{number}", output, as_responses)
        if drop == "pair":
            del history[2:4]
        before = copy.deepcopy(history)
        sent = asked(harness, history[:-1] if drop == "result" else history)
        assert history == before
        if drop == "result":
            continue  # It ended in the middle of a call; the next time the result is there.
        made = [id for one in sent for id in ids(one, "made")]
        assert made == [id for one in sent for id in ids(one, "answered")]
        if drop == "repeat":
            assert asked(harness, history) == sent
        assert not harness.leyline.bypassed


def step(id: str, output: str, as_responses: bool) -> list[dict[str, Any]]:
    if as_responses:
        return [response("I look.", id), {"type": OUTPUT, "call_id": id, "output": output}]
    call = tool_call(id, "bash", '{"command": "ls"}')
    asked = {"role": "assistant", "content": None, "tool_calls": [call], "extra": {"cost": 1.0}}
    return [asked, {"role": "tool", "tool_call_id": id, "content": output, "extra": EXTRA}]


def asked(harness: Harness[dict[str, Any]], history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    turn = harness.begin(history)
    turn.answered(None)
    return turn.messages


def ids(native: dict[str, Any], which: str) -> list[str]:
    message = CODEC.read(native)
    if which == "answered":
        return [message["tool_call_id"]] if message.get("tool_call_id") else []
    return [call["id"] for call in message.get("tool_calls") or ()]
