"""Real OpenAI clients through the proxy."""

import asyncio
import json

import httpx
import openai
import pytest
from starlette.responses import Response, StreamingResponse


def streamed(client, messages, **options):
    """A streamed reply, put together."""
    content, calls, usage = "", {}, None
    with client.chat.completions.create(
        model="m", messages=messages, stream=True, **options
    ) as stream:
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                content += choice.delta.content or ""
                for piece in choice.delta.tool_calls or ():
                    call = calls.setdefault(piece.index, {"id": piece.id, "arguments": ""})
                    call["arguments"] += piece.function.arguments or ""
    made = [
        {"id": c["id"], "type": "function", "function": {"name": "bash", **c}}
        for c in calls.values()
    ]
    for call in made:
        del call["function"]["id"]
    return {"role": "assistant", "content": content, "tool_calls": made}, usage


def test_the_view_goes_up_and_the_history_stays(proxy, provider, task, turns, outputs):
    messages = turns(proxy.client(), task, 4)
    assert [len(r["messages"]) for r in provider.requests] == [2, 4, 6, 8]
    last = provider.requests[-1]
    assert outputs(last)[-1] == messages[-3]["content"]
    assert all(len(text) <= 60 for text in outputs(last)[:-1])
    [session] = proxy.all
    assert session.version == 4
    assert session.stats().edits == 2
    assert len(session.history) == 9  # the reply to the last call is the ninth


def test_async_clients(proxy, provider, task, observed, outputs):
    async def run():
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{proxy.url}/v1") as client:
            messages = task
            for _ in range(3):
                reply = await client.chat.completions.create(model="m", messages=messages)
                message = reply.choices[0].message.model_dump(exclude_none=True)
                messages = observed(messages, message)

    asyncio.run(run())
    assert [len(text) <= 60 for text in outputs(provider.requests[-1])] == [True, False]


def test_streams_are_turns(proxy, provider, task, observed, outputs):
    client = proxy.client()
    messages = task
    for _ in range(4):
        message, usage = streamed(client, messages)
        assert message["content"] == "I look."
        assert usage is not None
        messages = observed(messages, message)
    assert [len(text) <= 60 for text in outputs(provider.requests[-1])] == [True, True, False]
    [session] = proxy.all
    assert session.version == 4


def test_headers_tell_of_the_turn(proxy, task, observed):
    raw = proxy.client().chat.completions.with_raw_response
    messages = task
    told = []
    for _ in range(3):
        response = raw.create(model="m", messages=messages)
        told.append(response.headers)
        message = response.parse().choices[0].message.model_dump(exclude_none=True)
        messages = observed(messages, message)
    assert [h["leyline-version"] for h in told] == ["1", "2", "3"]
    assert [h["leyline-base-version"] for h in told] == ["0", "1", "2"]
    assert [h["leyline-edits"] for h in told] == ["0", "0", "1"]
    assert len({h["leyline-session"] for h in told}) == 1
    assert told[0]["x-request-id"] == "r1"


def test_unedited_requests_go_up_byte_for_byte(proxy, provider):
    body = (
        b'{ "model":"m" ,"messages":[ {"role":"user","content":"\\u00e9 \\/"} ],'
        b' "temperature":1.0, "seed":12345678901234567890123, "x_unknown":{"a":[1e5]} }'
    )
    headers = {
        "Authorization": "Bearer secret",
        "X-Custom": "kept",
        "Content-Type": "application/json",
        "OpenAI-Organization": "org",
        "Leyline-Session": "mine",
    }
    answer = httpx.post(
        f"{proxy.url}/v1/chat/completions?beta=a%20b", content=body, headers=headers
    )
    assert answer.status_code == 200
    assert provider.bodies == [body]
    assert provider.paths == ["/v1/chat/completions?beta=a%20b"]
    [head] = provider.heads
    assert head["authorization"] == "Bearer secret"
    assert (head["x-custom"], head["openai-organization"]) == ("kept", "org")
    assert head["content-type"] == "application/json"
    assert [name for name in head if name.startswith("leyline")] == ["leyline-proxy"]
    assert head["host"] in provider.url


def test_unknown_fields_of_edited_requests_keep_their_bytes(proxy, provider, task, turns):
    messages = turns(proxy.client(), task, 2)
    text = json.dumps({"model": "m", "messages": messages})[:-1] + ', "x": {"y": 1.50, "z":[ ]}}'
    answer = httpx.post(
        f"{proxy.url}/v1/chat/completions",
        content=text.encode(),
        headers={"authorization": "Bearer key-a"},
    )
    assert answer.headers["leyline-edits"] == "1"
    assert b'"x": {"y": 1.50, "z":[ ]}' in provider.bodies[-1]
    assert json.dumps(messages[2]).encode() in provider.bodies[-1]


def test_everything_else_goes_through(proxy, provider):
    client = proxy.client()
    assert [model.id for model in client.models.list()] == ["m"]

    async def echo(request, body):
        return Response(body[::-1], 201, {"x-method": request.method}, "application/x-odd")

    provider.handle = echo
    data = bytes(range(256)) * 1000
    answer = httpx.put(f"{proxy.url}/v1/files/a%2Fb?x=1", content=data)
    assert (answer.status_code, answer.content) == (201, data[::-1])
    assert answer.headers["x-method"] == "PUT"
    assert answer.headers["content-type"] == "application/x-odd"
    assert answer.headers["content-length"] == str(len(data))
    assert provider.paths[-1] == "/v1/files/a%2Fb?x=1"

    def pieces():
        yield b"one"
        yield b"two"

    answer = httpx.post(f"{proxy.url}/v1/audio/transcriptions", content=pieces())
    assert answer.content == b"owteno"
    assert httpx.get(f"{proxy.url}/other/place").status_code == 201
    assert provider.paths[-1] == "/other/place?"
    assert "transfer-encoding" not in provider.heads[-1]


def test_a_receipt_for_who_asks(proxy, task, turns, observed):
    client = proxy.client()
    messages = turns(client, task, 2)
    asks = {"Leyline-Receipt": "1"}
    reply = client.chat.completions.create(model="m", messages=messages, extra_headers=asks)
    receipt = reply.model_extra["leyline"]
    assert receipt["version"] == 3
    assert receipt["prompt"] == reply.usage.prompt_tokens
    assert [edit["policy"] for edit in receipt["edits"]] == ["truncate_older_than"]
    message = reply.choices[0].message.model_dump(exclude_none=True)
    messages = observed(messages, message)
    chunks = list(
        client.chat.completions.create(
            model="m", messages=messages, stream=True, extra_headers=asks
        )
    )
    told = [chunk.model_extra["leyline"] for chunk in chunks if chunk.model_extra.get("leyline")]
    assert [receipt["version"] for receipt in told] == [4]
    assert chunks[-1].model_extra["leyline"] == told[0]


def test_pieces_of_a_stream_come_as_they_were_sent(proxy, provider, task):
    pieces = [
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}\r\n\r\nda',
        b'ta: {"choices":[{"index":0,"delta":{"content":"\xc3',
        b'\xa9"},"x_odd":1}]}\n\n: a comment\n\nevent: odd\ndata: {}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n',
        b"data: [DONE]\n\n",
    ]

    async def handle(request, body):
        async def send():
            for piece in pieces:
                yield piece
                await asyncio.sleep(0.03)

        return StreamingResponse(send(), media_type="text/event-stream")

    provider.handle = handle
    with httpx.stream(
        "POST", f"{proxy.url}/v1/chat/completions", json={"messages": task, "stream": True}
    ) as response:
        came = list(response.iter_raw())
    assert b"".join(came) == b"".join(pieces)
    assert came[:3] == pieces[:3]
    [session] = proxy.all
    assert session.history[-1] == {"role": "assistant", "content": "aé"}
    assert session.receipts[-1].prompt == 3


def test_a_base_url_without_v1(proxy, provider, task):
    proxy.client(path="").chat.completions.create(model="m", messages=task)
    assert provider.paths == ["/v1/chat/completions?"]


@pytest.mark.parametrize("place", ["header", "path"])
def test_named_sessions(proxy, task, turns, place):
    for name in ("run-1", "run-2"):
        path = f"/s/{name}/v1" if place == "path" else "/v1"
        headers = {"Leyline-Session": name} if place == "header" else {}
        turns(proxy.client(path=path, default_headers=headers), task, 3)
    found = proxy.all
    assert [(s.id, s.version) for s in found] == [("run-2", 3), ("run-1", 3)]
