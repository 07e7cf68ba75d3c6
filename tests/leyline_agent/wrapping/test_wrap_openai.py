import asyncio
import json

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

import leyline_agent as leyline
from leyline_agent import AdapterError, Reason
from leyline_agent.testing import DeterministicModel, MockAdapter


def loop(client, task, observe, turns=4, **options):
    messages = task
    for _ in range(turns):
        reply = client.chat.completions.create(model="m", messages=messages, **options)
        messages = observe(messages, reply.choices[0].message)
    return messages


def test_a_loop_with_an_openai_client(client, model, task, observe, outputs, stub):
    wrapped = leyline.wrap(policies=stub)(loop)
    messages = wrapped(client, task, observe, temperature=0)
    assert [outputs(r) for r in model.requests] == [
        [], ["output of c0"], ["stub", "output of c1"], ["stub", "stub", "output of c2"],
    ]  # fmt: skip
    assert all(r["temperature"] == 0 for r in model.requests)
    (session,) = wrapped.leyline.sessions
    assert session.version == 4
    assert len(session.history) == len(messages) - 1
    assert session.receipts[-1].prompt == sum(r.prompt for r in session.receipts) - sum(
        r.prompt for r in session.receipts[:-1]
    )
    assert session.receipts[1].reused_exact > 0


def test_outside_a_loop_nothing_changes(client, model, task, observe, outputs, stub):
    with pytest.warns(leyline.LeylineWarning, match="made no model call"):
        leyline.wrap(policies=stub)(lambda: None)()
    loop(client, task, observe)
    assert outputs(model.requests[-1]) == ["output of c0", "output of c1", "output of c2"]


def test_each_call_of_a_loop_is_a_session(client, task, observe, stub):
    wrapped = leyline.wrap(policies=stub)(loop)
    wrapped(client, task, observe)
    wrapped(client, task, observe)
    first, second = wrapped.leyline.sessions
    assert (first.version, second.version) == (4, 4)
    assert first.id.startswith("loop-")


def test_a_sub_agent_in_a_loop_has_its_own_session(client, model, task, observe, outputs, stub):
    other = [task[0], {"role": "user", "content": "Summarise."}]

    @leyline.wrap(policies=stub)
    def run():
        messages, inner = task, other
        for _ in range(3):
            messages = loop(client, messages, observe, turns=1)
            inner = loop(client, inner, observe, turns=1)

    run()
    assert [s.version for s in run.leyline.sessions] == [3, 3]
    assert outputs(model.requests[-1]) == ["stub", "output of c3"]


async def test_an_async_loop(async_client, model, task, observe, outputs, stub):
    @leyline.wrap(policies=stub)
    async def run():
        messages = task
        for _ in range(4):
            reply = await async_client.chat.completions.create(model="m", messages=messages)
            messages = observe(messages, reply.choices[0].message)

    await run()
    assert outputs(model.requests[-1]) == ["stub", "stub", "output of c2"]
    assert run.leyline.sessions[0].version == 4


async def test_concurrent_tasks_of_one_loop(async_client, task, stub):
    @leyline.wrap(policies=stub)
    async def run():
        asked = [
            async_client.chat.completions.create(
                model="m", messages=[task[0], {"role": "user", "content": f"Task {n}."}]
            )
            for n in range(5)
        ]
        return await asyncio.gather(*asked)

    assert len(await run()) == 5
    assert [s.version for s in run.leyline.sessions] == [1] * 5


def streamed(client, messages, **options):
    """The message of a streamed call, put together as harnesses do, stopping at the end."""
    content, call_id, arguments = "", "", ""
    stream = client.chat.completions.create(model="m", messages=messages, stream=True, **options)
    for chunk in stream:
        assert isinstance(chunk, ChatCompletionChunk)
        delta = chunk.choices[0].delta
        content += delta.content or ""
        for call in delta.tool_calls or ():
            call_id = call.id or call_id
            arguments += call.function.arguments or ""
        if chunk.choices[0].finish_reason:
            break
    function = {"name": "bash", "arguments": arguments}
    return {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }


def test_a_streaming_loop_that_stops_at_the_finish_reason(client, model, task, outputs, stub):
    @leyline.wrap(policies=stub)
    def run():
        messages = task
        for _ in range(4):
            message = streamed(client, messages, stream_options={"include_usage": True})
            call_id = message["tool_calls"][0]["id"]
            result = {"role": "tool", "tool_call_id": call_id, "content": f"output of {call_id}"}
            messages = [*messages, message, result]
        return messages

    messages = run()
    assert outputs(model.requests[-1]) == ["stub", "stub", "output of c2"]
    (session,) = run.leyline.sessions
    assert session.history == messages[:-1]
    assert session.receipts[-1].reused_exact > 0


def test_a_stream_is_still_the_librarys(client, task, stub):
    @leyline.wrap(policies=stub)
    def run():
        with client.chat.completions.create(model="m", messages=task, stream=True) as stream:
            assert isinstance(stream, openai.Stream)
            assert stream.response.status_code == 200
            return [chunk for chunk in stream]

    chunks = run()
    assert chunks[-1].choices == []
    assert run.leyline.sessions[0].version == 1


def test_an_abandoned_stream_leaves_the_session_as_it_was(client, task, observe, stub):
    @leyline.wrap(policies=stub)
    def run():
        messages = loop(client, task, observe, turns=2)
        for how in ("break", "close", "never read"):
            stream = client.chat.completions.create(model="m", messages=messages, stream=True)
            if how != "never read":
                next(stream)
            if how == "close":
                stream.close()
            del stream
        return loop(client, messages, observe, turns=1)

    run()
    (session,) = run.leyline.sessions
    stats = session.stats()
    assert (stats.turns, stats.failed) == (3, 3)
    assert session.version == 3


async def test_an_async_stream(async_client, task, stub):
    @leyline.wrap(policies=stub)
    async def run():
        stream = await async_client.chat.completions.create(model="m", messages=task, stream=True)
        assert isinstance(stream, openai.AsyncStream)
        async for chunk in stream:
            if chunk.choices[0].finish_reason:
                break
        async with await async_client.chat.completions.create(
            model="m", messages=task, stream=True
        ) as stream:
            await anext(stream)

    await run()
    stats = run.leyline.sessions[0].stats()
    assert (stats.turns, stats.failed) == (1, 1)


def test_a_stream_of_several_choices_is_not_held_back():
    def handle(request):
        chunks = [(0, "a", None), (1, "b", None), (0, "", "stop"), (1, "c", None), (1, "", "stop")]
        frame = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m"}
        events = ""
        for index, text, stopped in chunks:
            choice = {"index": index, "delta": {"content": text}, "finish_reason": stopped}
            body = openai.BaseModel.construct(**frame, choices=[choice]).model_dump_json()
            events += f"data: {body}\n\n"
        return httpx.Response(
            200, headers={"content-type": "text/event-stream"}, content=events.encode()
        )

    @leyline.wrap
    def run(client):
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True, n=2
        )
        return [chunk.choices[0].index for chunk in stream]

    with httpx.Client(transport=httpx.MockTransport(handle)) as http:
        client = openai.OpenAI(api_key="none", base_url="http://test/v1", http_client=http)
        assert run(client) == [0, 1, 0, 1, 1]
    assert run.leyline.sessions[0].history[-1]["content"] == "a"


def test_errors_of_the_provider_pass_and_cost_only_the_turn(task, observe, stub):
    answers = iter([500, 200])

    def handle(request):
        status = next(answers)
        made = DeterministicModel("fine")(messages=task)
        return httpx.Response(status, json=made if status == 200 else {"error": "boom"})

    with httpx.Client(transport=httpx.MockTransport(handle)) as http:
        client = openai.OpenAI(
            api_key="none", base_url="http://test/v1", http_client=http, max_retries=0
        )

        @leyline.wrap(policies=stub)
        def run():
            with pytest.raises(openai.InternalServerError):
                client.chat.completions.create(model="m", messages=task)
            client.chat.completions.create(model="m", messages=task)

        run()
    (session,) = run.leyline.sessions
    assert (session.version, session.stats().failed) == (1, 1)


def test_raw_responses_go_through(client, model, task, observe, outputs, stub):
    @leyline.wrap(policies=stub)
    def run():
        messages = loop(client, task, observe, turns=2)
        raw = client.chat.completions.with_raw_response.create(model="m", messages=messages)
        assert raw.status_code == 200
        messages = observe(messages, raw.parse().choices[0].message)
        with client.chat.completions.with_streaming_response.create(
            model="m", messages=messages
        ) as response:
            assert "choices" in response.json()

    run()
    assert outputs(model.requests[2]) == ["stub", "output of c1"]
    assert outputs(model.requests[3]) == ["stub", "stub", "output of c2"]
    (session,) = run.leyline.sessions
    assert session.receipts[2].prompt > 0
    assert session.receipts[3].reason is Reason.NO_RECEIPT


def test_parsed_completions_go_through(client, model, task, outputs, observe, stub):
    @leyline.wrap(policies=stub)
    def run():
        messages = loop(client, task, observe, turns=2)
        return client.chat.completions.parse(model="m", messages=messages)

    assert run().choices[0].message.content == "I look."
    assert outputs(model.requests[2]) == ["stub", "output of c1"]


def test_malformed_messages_go_to_the_provider_unedited(task, stub, caplog):
    sent = []

    def handle(request):
        sent.append(json.loads(request.content)["messages"])
        return httpx.Response(200, json=DeterministicModel("fine")(messages=task))

    @leyline.wrap(policies=stub)
    def run(client):
        return client.chat.completions.create(model="m", messages=[{"content": "no role"}])

    with httpx.Client(transport=httpx.MockTransport(handle)) as http:
        client = openai.OpenAI(api_key="none", base_url="http://test/v1", http_client=http)
        with pytest.warns(leyline.LeylineWarning, match="unedited: TrajectoryError: message 0 has"):
            assert run(client).choices[0].message.content == "fine"
        assert run(client).choices[0].message.content == "fine"
    assert sent == [[{"content": "no role"}]] * 2
    assert run.leyline.bypassed[0].startswith("TrajectoryError: message 0 has no role")
    assert "goes out unedited" in caplog.text


def test_an_engine_in_this_process_takes_the_calls_over(client, model, task, observe, stub):
    adapter = MockAdapter(model)
    wrapped = leyline.wrap(policies=stub, adapter=adapter)(loop)
    messages = wrapped(client, task, observe, temperature=0)
    assert isinstance(messages[2], openai.types.chat.ChatCompletionMessage)
    assert adapter.model.requests[-1]["temperature"] == 0
    (session,) = wrapped.leyline.sessions
    assert session.receipts[-1].reused_spliced > 0
    assert session.receipts[-1].edits[0].policy == "stub"


def test_taken_over_responses_are_the_librarys(client, model, task, stub):
    @leyline.wrap(policies=stub, adapter=MockAdapter(model))
    def run():
        made = client.chat.completions.create(model="m", messages=task, tools=openai.NOT_GIVEN)
        with client.chat.completions.create(model="m", messages=task, stream=True) as stream:
            return made, list(stream)

    made, chunks = run()
    assert isinstance(made, ChatCompletion)
    assert made.usage.prompt_tokens > 0
    assert all(isinstance(c, ChatCompletionChunk) for c in chunks)
    assert chunks[-1].usage.prompt_tokens > 0
    assert run.leyline.sessions[0].version == 2


async def test_async_calls_are_taken_over(async_client, model, task, stub):
    @leyline.wrap(policies=stub, adapter=MockAdapter(model))
    async def run():
        made = await async_client.chat.completions.create(model="m", messages=task)
        stream = await async_client.chat.completions.create(model="m", messages=task, stream=True)
        return made, [chunk async for chunk in stream]

    made, chunks = await run()
    assert isinstance(made, ChatCompletion)
    assert isinstance(chunks[0], ChatCompletionChunk)
    assert run.leyline.sessions[0].version == 2


def test_what_an_engine_in_this_process_cannot_answer_is_told(client, task):
    @leyline.wrap(adapter=MockAdapter())
    def run(create):
        create(model="m", messages=task)

    for create, problem in (
        (client.chat.completions.with_raw_response.create, "no raw HTTP response"),
        (client.chat.completions.parse, "does not parse replies"),
    ):
        with pytest.raises(AdapterError, match=problem):
            run(create)
    assert all(s.version == 0 for s in run.leyline.sessions)
