import pytest

from leyline_agent import AdapterError, CallingAdapter, Session
from leyline_agent.testing import DeterministicModel, tool_call

ASK = [{"role": "user", "content": "Hello there."}]


def test_it_follows_its_script_as_a_client():
    client = DeterministicModel("first", tool_call("bash", command="ls"))
    first = client.chat.completions.create(model="m", messages=ASK)
    assert first.choices[0].message.content == "first"
    assert first["choices"][0]["finish_reason"] == "stop"
    second = client.chat.completions.create(model="m", messages=ASK, temperature=0)
    (call,) = second.choices[0].message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == (
        "call_1_0", "bash", '{"command": "ls"}',
    )  # fmt: skip
    assert [r["model"] for r in client.requests] == ["m", "m"]
    assert client.requests[1]["temperature"] == 0


def test_a_missing_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = DeterministicModel("x")(messages=ASK).nothing


def test_replies_can_be_functions_and_errors():
    model = DeterministicModel(lambda messages: f"{len(messages)} so far", TimeoutError("slow"))
    assert model(messages=ASK).choices[0].message.content == "1 so far"
    with pytest.raises(TimeoutError):
        model(messages=ASK)


def test_the_script_ends_or_repeats():
    once = DeterministicModel("a")
    once(messages=ASK)
    with pytest.raises(AdapterError, match="has 1 replies and this is call 2"):
        once(messages=ASK)
    again = DeterministicModel("a", "b", repeat=True)
    said = [again(messages=ASK).choices[0].message.content for _ in range(3)]
    assert said == ["a", "b", "a"]


def test_streams_add_up_to_the_reply():
    message = tool_call("bash", content="I look  around.", command="ls")
    chunks = list(DeterministicModel(message)(messages=ASK, stream=True))
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(d.get("content") or "" for d in deltas) == "I look  around."
    calls = [d.tool_calls[0].function for d in deltas if "tool_calls" in d]
    assert "".join(c.arguments for c in calls) == '{"command": "ls"}'
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "tool_calls"
    assert chunks[-1].usage.prompt_tokens > 0


def test_usage_counts_what_an_exact_prefix_cache_would_reuse():
    model = DeterministicModel("one", "two", "three")
    first = model(messages=ASK)
    answered = [*ASK, first.choices[0].message]
    second = model(messages=[*answered, {"role": "user", "content": "More."}])
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached == first.usage.prompt_tokens + first.usage.completion_tokens
    assert model(messages=answered).usage.prompt_tokens_details.cached_tokens == cached
    assert first.usage.prompt_tokens_details.cached_tokens == 0


async def test_it_is_called_asynchronously():
    model = DeterministicModel("one", "two", "three")
    assert (await model.acreate(messages=ASK)).choices[0].message.content == "one"
    assert len([c async for c in await model.acreate(messages=ASK, stream=True)]) > 2
    assert len([c async for c in model.astream({"messages": ASK})]) > 2


def test_it_is_a_calling_adapter_without_sessions():
    model = DeterministicModel("one")
    assert isinstance(model, CallingAdapter)
    session = Session(adapter=model)
    turn = session.begin(ASK)
    assert turn.finish(model.complete(turn.request)).prompt == 7
    for impossible in (
        lambda: model.apply("s", 1, []),
        lambda: model.edit_ahead(turn.request, turn.commit),
    ):
        with pytest.raises(AdapterError, match="use MockAdapter"):
            impossible()
