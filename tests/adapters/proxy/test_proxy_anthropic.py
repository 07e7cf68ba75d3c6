"""The real Anthropic client through the proxy."""

import json

import anthropic
import httpx
import pytest
from anthropic_server import Scripted, serving
from recalling_model import recalling
from starlette.responses import JSONResponse, Response, StreamingResponse

from leyline_adapters.anthropic.messages import to_chat
from leyline_adapters.anthropic.replies import events, to_message
from leyline_agent.testing.model import chunks

MARK = {"type": "ephemeral"}
TOOLS = [{"name": "bash", "description": "A shell.", "input_schema": {"type": "object"}}]
SYSTEM = [{"type": "text", "text": "You fix bugs.", "cache_control": MARK}]


@pytest.fixture
def messages_api(provider):
    """The provider as Anthropic's API has it."""

    async def handle(request, body):
        if request.url.path.endswith("count_tokens"):
            return JSONResponse({"input_tokens": len(body)})
        asked = json.loads(body)
        completion = provider.model.complete({"messages": to_chat(asked).messages})
        if not asked.get("stream"):
            return JSONResponse(to_message(completion))

        def said():
            for event in events(chunks(completion)):
                yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

        return StreamingResponse(said(), media_type="text/event-stream")

    provider.handle = handle
    return provider


@pytest.fixture
def running(start, messages_api):
    return start(messages_api.url, adapter="openai")


def client_of(running, key="key-a"):
    made = anthropic.Anthropic(api_key=key, base_url=running.url, max_retries=0)
    return running.closing.enter_context(made)


def asked(messages, **fields):
    return {"model": "m", "max_tokens": 99, "messages": messages, "tools": TOOLS, **fields}


def grown(messages, reply):
    """The messages a harness sends next."""
    use = next(block for block in reply.content if block.type == "tool_use")
    text = [{"type": "text", "text": f"output of {use.id} " * 20}]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": text}
    content = [block.model_dump(exclude_none=True) for block in reply.content]
    return [
        *messages,
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]


def replied(client, messages, stream):
    request = asked(messages, system=SYSTEM)
    if not stream:
        return client.messages.create(**request)
    with client.messages.stream(**request) as said:
        return said.get_final_message()


def turns(running, messages, count, stream=False):
    client = client_of(running)
    for _ in range(count):
        messages = grown(messages, replied(client, messages, stream))
    return messages


FIRST = [{"role": "user", "content": "Fix the bug."}]


@pytest.mark.parametrize("stream", [False, True])
def test_the_view_goes_up_and_the_history_stays(running, messages_api, stream):
    messages = turns(running, FIRST, 4, stream)
    sent = messages_api.requests[-1]
    assert [len(r["messages"]) for r in messages_api.requests] == [1, 3, 5, 7]
    results = [m["content"][0]["content"] for m in sent["messages"][2::2]]
    assert results[-1] == messages[-3]["content"][0]["content"]
    shortened = [r if isinstance(r, str) else r[0]["text"] for r in results[:-1]]
    assert all(len(text) <= 60 for text in shortened)
    assert sent["system"] == SYSTEM
    assert sent["tools"] == TOOLS
    [session] = running.all
    assert (session.version, session.stats().edits) == (4, 2)
    assert session.stats().prompt > 0


def test_unedited_messages_keep_their_bytes(running, messages_api):
    messages = turns(running, FIRST, 2)
    messages[-1]["content"][0]["cache_control"] = MARK
    texts = [json.dumps(message, indent=1) for message in messages]
    system = json.dumps(SYSTEM, indent=1)
    head = f'{{"model": "m", "max_tokens": 99, "x": 1.50, "system": {system}, '
    body = f'{head}"messages": [{",".join(texts)}]}}'
    headers = {"x-api-key": "key-a", "anthropic-version": "2023-06-01"}
    answer = httpx.post(running.url + "/v1/messages", content=body, headers=headers)
    assert answer.headers["leyline-edits"] == "1"
    assert answer.headers["leyline-version"] == "3"
    sent = messages_api.bodies[-1].decode()
    assert [text in sent for text in texts] == [True, True, False, True, True]
    assert '"x": 1.50' in sent
    assert f'"system": {system}' in sent
    assert messages_api.heads[-1]["x-api-key"] == "key-a"
    assert messages_api.heads[-1]["anthropic-version"] == "2023-06-01"


def test_a_request_without_edits_goes_up_byte_for_byte(running, messages_api):
    body = b'{"max_tokens": 9,  "messages" : [ {"role":"user","content":"\\u00e9"} ]}'
    answer = httpx.post(running.url + "/v1/messages", content=body)
    assert answer.headers["leyline-version"] == "1"
    assert messages_api.bodies == [body]


@pytest.mark.parametrize("besides", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_recalls_are_hidden(start, messages_api, stream, besides):
    messages_api.model = recalling(besides=besides)
    running = start(messages_api.url, adapter="openai", recall=True)
    messages = turns(running, FIRST, 4, stream)
    assert len(messages_api.requests) == (4 if besides else 6)
    names = [tool["name"] for tool in messages_api.requests[0]["tools"]]
    assert names == ["bash", "leyline_recall"]
    used = [m["content"][-1]["name"] for m in messages if m["role"] == "assistant"]
    assert used == ["bash"] * 4
    assert "leyline_recall" not in json.dumps([m for m in messages if m["role"] == "assistant"])
    [session] = running.all
    assert session.stats().recalls == 2


@pytest.mark.parametrize("tells_all", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_the_usage_is_that_of_hidden_calls_too(start, stream, tells_all):
    scripted = Scripted(recalling(besides=False), lambda body: "")
    scripted.tells_all = tells_all
    with serving(scripted) as url:
        running = start(url, adapter="openai", recall=True)
        messages = turns(running, FIRST, 2, stream)
        usage = replied(client_of(running), messages, stream).usage
    for name in ("input_tokens", "output_tokens"):
        assert getattr(usage, name) == sum(each[name] for each in scripted.usages[-2:])
    assert len(scripted.usages) == 4


def test_counting_tokens_goes_through(running, messages_api):
    counted = client_of(running).messages.count_tokens(model="m", messages=FIRST)
    assert counted.input_tokens == len(messages_api.bodies[-1])
    assert running.all == []


def test_errors_are_anthropics(start, messages_api, running):
    async def overloaded(request, body):
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
        return JSONResponse(error, 529, {"retry-after": "3"})

    messages_api.handle = overloaded
    with pytest.raises(anthropic.APIStatusError, match="busy") as found:
        client_of(running).messages.create(**asked(FIRST))
    assert found.value.response.headers["retry-after"] == "3"
    gone = start("http://127.0.0.1:9", adapter="openai")
    with pytest.raises(anthropic.APIStatusError) as found:
        client_of(gone).messages.create(**asked(FIRST))
    assert found.value.status_code == 502
    assert found.value.body["error"]["type"] == "api_error"


def test_an_error_in_a_stream_is_no_turn(running, messages_api):
    said = b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error"}}\n\n'

    async def broken(request, body):
        return Response(said, 200, media_type="text/event-stream")

    messages_api.handle = broken
    answer = httpx.post(running.url + "/v1/messages", json=asked(FIRST, stream=True))
    assert answer.content == said
    [session] = running.all
    assert (session.version, session.stats().failed) == (0, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": "hello"},
        {"messages": [3]},
        {"messages": [{"role": "user", "content": 3}]},
        {"messages": [], "system": 3},
        {"messages": FIRST, "leyline": {}},
    ],
)
def test_what_is_no_turn_goes_through_with_the_reason(running, messages_api, fields):
    async def refuse(request, body):
        return Response(b"no", 400)

    messages_api.handle = refuse
    answer = httpx.post(running.url + "/v1/messages", json={"model": "m", **fields})
    assert (answer.status_code, answer.content) == (400, b"no")
    assert answer.headers["leyline-bypassed"]


def test_both_apis_of_one_key_are_kept_apart(running, messages_api, task):
    turns(running, FIRST, 1)
    first = running.all[0]
    httpx.post(
        running.url + "/v1/chat/completions",
        json={"messages": task},
        headers={"x-api-key": "key-a"},
    )
    assert running.all[0] is not first
