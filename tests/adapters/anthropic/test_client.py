import json
import threading

import anthropic
import pytest

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call
from leyline_agent.wrapping.process import Instrumentation

OPTIONS = {
    "model": "m",
    "max_tokens": 99,
    "system": "You fix bugs.",
    "tools": [{"name": "bash", "input_schema": {"type": "object"}}],
}
TASK = {"role": "user", "content": "Fix the bug."}


def results(message, *more):
    """What a harness sends back after a reply: the result of each call."""
    found = [
        {"type": "tool_result", "tool_use_id": block.id, "content": f"output of {block.id}"}
        for block in message.content
        if block.type == "tool_use"
    ]
    return [
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [*found, *more]},
    ]


def whole(client, messages):
    return client.messages.create(messages=messages, **OPTIONS)


def raw(client, messages):
    return client.messages.with_raw_response.create(messages=messages, **OPTIONS).parse()


def beta(client, messages):
    return client.beta.messages.create(messages=messages, **OPTIONS)


def parsed(client, messages):
    return client.messages.parse(messages=messages, **OPTIONS)


def streamed(client, messages):
    """The events put together by hand, as harnesses do."""
    blocks, inputs = [], {}
    with client.messages.create(messages=messages, stream=True, **OPTIONS) as stream:
        for event in stream:
            if event.type == "content_block_start":
                blocks.append(event.content_block)
            elif event.type == "content_block_delta" and event.delta.type == "input_json_delta":
                inputs.setdefault(event.index, []).append(event.delta.partial_json)
            elif event.type == "content_block_delta":
                blocks[event.index].text += event.delta.text
    for index, parts in inputs.items():
        blocks[index].input = json.loads("".join(parts))
    return anthropic.types.Message.construct(content=blocks)


def managed(client, messages):
    with client.messages.stream(messages=messages, **OPTIONS) as stream:
        assert "".join(stream.text_stream) == "I look."
        return stream.get_final_message()


def beta_managed(client, messages):
    with client.beta.messages.stream(messages=messages, **OPTIONS) as stream:
        return stream.get_final_message()


WAYS = [whole, raw, beta, parsed, streamed, managed, beta_managed]


def loop(call, client, turns=4):
    messages = [TASK]
    for _ in range(turns):
        messages = [*messages, *results(call(client, messages))]
    return messages


def outputs(request):
    """The contents of the results in a request."""
    blocks = [block for m in request["messages"] if m["role"] == "user" for block in m["content"]]
    return [b["content"] for b in blocks if not isinstance(b, str) and b["type"] == "tool_result"]


EDITED = ["stub", "stub", "output of c2"]


@pytest.mark.parametrize("call", WAYS)
def test_a_wrapped_loop(client, scripted, stub_results, call):
    wrapped = leyline.wrap(policies=stub_results)(lambda: loop(call, client))
    messages = wrapped()
    assert outputs(scripted.requests[-1]) == EDITED
    assert outputs({"messages": messages[1:]}) == [f"output of c{i}" for i in range(4)]
    (session,) = wrapped.leyline.sessions
    assert session.version == 4
    assert not wrapped.leyline.bypassed
    assert [message["role"] for message in session.history[:2]] == ["system", "user"]
    assert session.receipts[1].reused_exact > 0
    assert session.receipts[1].completion > 0


def test_streams_are_the_clients_own(client):
    with leyline.instrument_anthropic():
        with client.messages.create(messages=[TASK], stream=True, **OPTIONS) as stream:
            assert isinstance(stream, anthropic.Stream)
            assert stream.response.status_code == 200
        with client.messages.stream(messages=[TASK], **OPTIONS) as stream:
            assert isinstance(stream, anthropic.lib.streaming.MessageStream)


@pytest.mark.parametrize("call", WAYS)
def test_outside_all_scopes_nothing_happens(client, scripted, call):
    loop(call, client)
    assert "stub" not in outputs(scripted.requests[-1])


def test_instrumented(client, scripted, stub_results, tmp_path):
    with leyline.instrument_anthropic(policies=stub_results, journal=tmp_path) as handle:
        assert isinstance(handle, Instrumentation)
        loop(whole, client)
        loop(managed, client)
    assert outputs(scripted.requests[3]) == EDITED
    assert [session.version for session in handle.sessions] == [4, 4]
    assert len(list(tmp_path.iterdir())) == 2
    loop(whole, client)
    assert "stub" not in outputs(scripted.requests[-1])


async def test_async(async_client, scripted, stub_results):
    async def created(messages):
        return await async_client.messages.create(messages=messages, **OPTIONS)

    async def streamed(messages):
        async with async_client.messages.stream(messages=messages, **OPTIONS) as stream:
            return await stream.get_final_message()

    async def raw(messages):
        made = async_client.messages.with_raw_response
        return await (await made.create(messages=messages, **OPTIONS)).parse()

    with leyline.instrument_anthropic(policies=stub_results) as handle:
        for call in (created, streamed, raw):
            messages = [TASK]
            for _ in range(4):
                messages = [*messages, *results(await call(messages))]
    assert [session.version for session in handle.sessions] == [4, 4, 4]
    assert [outputs(request)[0] for request in scripted.requests[3::4]] == ["stub"] * 3


async def test_async_events(async_client, stub_results):
    @leyline.wrap(policies=stub_results)
    async def run():
        stream = await async_client.messages.create(messages=[TASK], stream=True, **OPTIONS)
        return [event.type async for event in stream]

    kinds = await run()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert run.leyline.sessions[0].history[-1]["tool_calls"][0]["id"] == "c0"


def test_a_wrapped_call_with_messages_in_anthropics_form(client, scripted, stub_results):
    @leyline.wrap(policies=stub_results)
    def call_model(messages):
        return client.messages.create(messages=messages, **OPTIONS)

    messages = [TASK]
    for _ in range(4):
        messages = [*messages, *results(call_model(messages))]
    assert outputs(scripted.requests[-1]) == EDITED
    (session,) = call_model.leyline.sessions
    assert session.version == 4
    assert session.receipts[-1].prompt > 0


def test_text_beside_results_and_several_results(client, scripted, stub_results):
    scripted.model = DeterministicModel(
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [tool_call("bash", id=f"c{i}")["tool_calls"][0] for i in range(2)],
        },
        tool_call("bash", id="c2"),
        "Done.",
    )

    @leyline.wrap(policies=stub_results)
    def run():
        messages = [TASK]
        for _ in range(3):
            reply = whole(client, messages)
            messages = [*messages, *results(reply, {"type": "text", "text": "Go on."})]
        return reply

    assert run().content[0].text == "Done."
    assert scripted.requests[-1]["messages"][2]["content"] == [
        {"type": "tool_result", "tool_use_id": "c0", "content": "stub"},
        {"type": "tool_result", "tool_use_id": "c1", "content": "stub"},
        {"type": "text", "text": "Go on."},
    ]


def test_messages_that_cannot_be_read_go_out_as_they_are(client, scripted):
    odd = [{"role": "user", "content": [{"type": "tool_result", "content": "?"}, 7]}]
    scripted.refusal = lambda body: ""
    scripted.model = DeterministicModel("Well.")
    seen, answered = [], scripted.answer

    def answer(body, headers):
        seen.append(body["messages"])
        return answered({"messages": [TASK]}, headers)

    scripted.answer = answer
    with leyline.instrument_anthropic() as handle, pytest.warns(leyline.LeylineWarning):
        client.messages.create(model="m", max_tokens=9, messages=odd)
    assert seen == [odd]
    assert "TrajectoryError" in handle.bypassed[0]


def test_messages_that_cannot_be_read_are_not_an_engines(client):
    adapter = engine("One.")
    with (
        leyline.instrument_anthropic(adapter=adapter),
        pytest.warns(leyline.LeylineWarning),
        pytest.raises(leyline.TrajectoryError, match="robot"),
    ):
        client.messages.create(
            model="m", max_tokens=9, messages=[{"role": "robot", "content": "?"}]
        )
    assert adapter.model.requests == []


# An engine that makes the call itself


def engine(*replies):
    return MockAdapter(DeterministicModel(*replies))


def mock_calls(*, final="Done."):
    return [tool_call("bash", id=f"c{i}", content="I look.") for i in range(3)] + [final]


@pytest.mark.parametrize("call", [whole, beta, streamed, managed, beta_managed])
def test_an_engine_in_this_process(client, scripted, stub_results, call):
    adapter = engine(*mock_calls(final=tool_call("bash", id="c3", content="I look.")))
    wrapped = leyline.wrap(policies=stub_results, adapter=adapter)(lambda: loop(call, client))
    messages = wrapped()
    assert scripted.requests == []
    assert outputs({"messages": messages[1:]}) == [f"output of c{i}" for i in range(4)]
    (session,) = wrapped.leyline.sessions
    assert session.receipts[-1].reused_spliced > 0


async def test_an_engine_in_this_process_async(async_client, scripted):
    adapter = engine("One.", "Two.")
    with leyline.instrument_anthropic(adapter=adapter):
        first = await async_client.messages.create(messages=[TASK], **OPTIONS)
        async with async_client.messages.stream(messages=[TASK], **OPTIONS) as stream:
            second = await stream.get_final_message()
    assert [first.content[0].text, second.content[0].text] == ["One.", "Two."]
    assert isinstance(first, anthropic.types.Message)
    assert scripted.requests == []


def test_what_an_engine_is_asked(client):
    adapter = engine("One.")
    with leyline.instrument_anthropic(adapter=adapter):
        client.messages.create(
            messages=[TASK],
            stop_sequences=["END"],
            tool_choice={"type": "tool", "name": "bash"},
            **OPTIONS,
        )
    request = adapter.model.requests[0]
    assert request["stop"] == ["END"]
    assert request["tool_choice"] == {"type": "function", "function": {"name": "bash"}}
    assert request["tools"][0]["function"]["name"] == "bash"
    assert request["messages"][0] == {"role": "system", "content": "You fix bugs."}


@pytest.mark.parametrize("call", [raw, parsed])
def test_what_an_engine_in_this_process_has_not(client, call):
    with (
        leyline.instrument_anthropic(adapter=engine("One.")),
        pytest.raises(leyline.AdapterError, match="an engine in this process"),
    ):
        call(client, [TASK])


# Bad input


@pytest.mark.parametrize("call", [whole, streamed, managed])
def test_a_refusal_reaches_the_harness_and_the_retry_acts_once(
    client, scripted, stub_results, call
):
    with leyline.instrument_anthropic(policies=stub_results) as handle:
        messages = loop(call, client, turns=3)
        scripted.faults = [(429, {"retry-after": "7"})]
        with pytest.raises(anthropic.RateLimitError) as caught:
            call(client, messages)
        assert caught.value.response.headers["retry-after"] == "7"
        call(client, messages)
    (session,) = handle.sessions
    assert (session.stats().turns, session.stats().failed) == (4, 1)
    assert outputs(scripted.requests[-1]) == EDITED
    assert len(session.edits) == 2


@pytest.mark.parametrize("call", [whole, managed])
def test_an_upstream_that_is_too_slow(server, scripted, call):
    scripted.faults = ["sleep"]
    options = {"api_key": "none", "base_url": server, "max_retries": 0}
    with leyline.instrument_anthropic() as handle:
        with anthropic.Anthropic(timeout=0.2, **options) as hasty:
            with pytest.raises(anthropic.APITimeoutError):
                call(hasty, [TASK])
        with anthropic.Anthropic(**options) as patient:
            call(patient, [TASK])
    (session,) = handle.sessions
    assert (session.stats().failed, session.stats().turns) == (1, 1)


def test_the_clients_own_retries_are_one_turn(server, scripted):
    scripted.faults = [(429, {"retry-after": "0"}), (529, {})]
    with (
        leyline.instrument_anthropic() as handle,
        anthropic.Anthropic(api_key="none", base_url=server, max_retries=2) as client,
    ):
        whole(client, [TASK])
    assert handle.sessions[0].stats().turns == 1
    assert handle.sessions[0].stats().failed == 0


@pytest.mark.parametrize("call", [streamed, managed])
def test_a_stream_that_breaks(client, scripted, call):
    scripted.faults = ["break"]
    with leyline.instrument_anthropic() as handle:
        with pytest.raises(Exception, match="peer closed|incomplete|Connection") as caught:
            call(client, [TASK])
        assert "leyline" not in type(caught.value).__module__
        call(client, [TASK])
    (session,) = handle.sessions
    assert (session.stats().failed, session.stats().turns) == (1, 1)


def test_a_manager_that_is_never_entered_is_a_turn_given_up(client):
    with leyline.instrument_anthropic() as handle:
        client.messages.stream(messages=[TASK], **OPTIONS)
        assert handle.sessions[0].is_idle
        assert handle.sessions[0].stats().failed == 1


def test_a_stream_left_early_is_a_turn_given_up(client):
    with leyline.instrument_anthropic() as handle:
        with client.messages.stream(messages=[TASK], **OPTIONS) as stream:
            next(iter(stream))
        assert (handle.sessions[0].version, handle.sessions[0].stats().failed) == (0, 1)


def test_threads(client, stub_results):
    tasks = [{"role": "user", "content": f"Task {n}."} for n in range(4)]

    def run(task):
        messages = [task]
        for _ in range(3):
            messages = [*messages, *results(whole(client, messages))]

    with leyline.instrument_anthropic(policies=stub_results) as handle:
        threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(session.version for session in handle.sessions) == [3, 3, 3, 3]
