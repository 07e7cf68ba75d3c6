"""`/v1/chat/completions` as an OpenAI client sees it."""

from __future__ import annotations

import copy
import json
from typing import Any

import httpx
import pytest

from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.server import create_app

URL = "/v1/chat/completions"
MESSAGES = [
    {"role": "system", "content": "You are a careful programmer."},
    {"role": "user", "content": "Read the file again and run the tests."},
]


def chat(**more: Any) -> dict[str, Any]:
    return {"messages": MESSAGES, "temperature": 0, "max_tokens": 12, **more}


def events(response: httpx.Response) -> list[Any]:
    """The bodies of a stream of server-sent events; the end marker is checked and dropped."""
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def test_a_completion_has_openais_shape(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=chat(model="tiny"))
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny"
    [choice] = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length")
    usage = body["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12
    receipt = Receipt.model_validate(body["leyline"])
    assert receipt.prompt == usage["prompt_tokens"] == receipt.prefilled


async def test_the_same_prompt_again_is_reused(client: httpx.AsyncClient) -> None:
    first = (await client.post(URL, json=chat())).json()
    again = (await client.post(URL, json=chat())).json()
    prompt = first["usage"]["prompt_tokens"]
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert again["usage"]["prompt_tokens_details"] == {"cached_tokens": prompt - 1}
    assert again["choices"][0]["message"] == first["choices"][0]["message"]


async def test_a_stream_says_the_same_as_a_completion(client: httpx.AsyncClient) -> None:
    whole = (await client.post(URL, json=chat())).json()
    response = await client.post(URL, json=chat(stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    said = "".join(delta.get("content", "") for delta in deltas)
    assert said == whole["choices"][0]["message"]["content"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert Receipt.model_validate(chunks[-1]["leyline"]).prompt == whole["usage"]["prompt_tokens"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_a_stream_ends_with_usage_where_asked_for(client: httpx.AsyncClient) -> None:
    whole = (await client.post(URL, json=chat())).json()
    options = {"include_usage": True}
    chunks = events(await client.post(URL, json=chat(stream=True, stream_options=options)))
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert "leyline" in chunks[-1]
    assert "leyline" not in chunks[-2]


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_come_a_token_each(client: httpx.AsyncClient, stream: bool) -> None:
    response = await client.post(URL, json=chat(logprobs=True, top_logprobs=2, stream=stream))
    bodies = events(response) if stream else [response.json()]
    entries = [
        entry
        for body in bodies
        for choice in body["choices"]
        for entry in (choice.get("logprobs") or {"content": []})["content"]
    ]
    assert len(entries) == 12
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    assert all(entry["logprob"] <= 0 for entry in entries)


async def test_a_stop_string_ends_the_reply(client: httpx.AsyncClient) -> None:
    whole = (await client.post(URL, json=chat())).json()["choices"][0]["message"]["content"]
    stop = whole[5:7]
    body = (await client.post(URL, json=chat(stop=[stop]))).json()
    assert body["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_another_model_is_not_found(client: httpx.AsyncClient) -> None:
    response = await client.post(URL, json=chat(model="gpt-4o"))
    assert response.status_code == 404
    error = response.json()["error"]
    assert error["code"] == "model_not_found"
    assert "'gpt-4o'" in error["message"]
    assert "'tiny'" in error["message"]
    assert error["param"] == "model"


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "needs 1 or more items"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "is missing; it is one of system"),
        ({"temperature": -1}, "temperature", "must be 0 or more, not -1"),
        ({"max_tokens": "many"}, "max_tokens", "expected an integer, not 'many'"),
        ({"n": 2}, "n", "send the request n times"),
        ({"top_p": 0}, "top_p", "must be more than 0, not 0"),
        ({"top_k": -1}, "top_k", "must be 0 or more, not -1"),
        ({"max_tokens": 0}, "max_tokens", "must be 1 or more, not 0"),
        ({"stop": [""]}, "stop", "a stop string is empty"),
        ({"stop": [5]}, "stop", "expected a string or an array of strings"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "is not supported"),
        ({"functions": [{}]}, "functions", "use tools"),
        ({"modalities": ["text", "audio"]}, "modalities", "only text"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs to be true"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "declare functions"),
        ({"leyline": {"session": "s", "base_version": 5, "version": 4}}, "leyline.version", "4 is"),
        (
            {"leyline": {"session": "s", "edits": [{"messages": [9, 12], "count": 1}]}},
            "leyline.edits[0].messages",
            "[9, 12) begins past the end of the view",
        ),
        (
            {"leyline": {"session": "s", "edits": [{"messages": [0, 1], "count": 1}]}},
            "leyline.base_version",
            "is missing; name the version that the edits came from, or 0 to begin a session",
        ),
        (
            {"leyline": {"session": "s", "version": 3}},
            "leyline.base_version",
            "is missing; name the version that version 3 came from",
        ),
        (
            {"presence_penalty": 0.5},
            "presence_penalty",
            "is not supported; leave it out, or send 0",
        ),
        ({"tool_choice": "required"}, "tool_choice", "use 'auto' or 'none'"),
        ({"response_format": {"type": "json_object"}}, "response_format", "plain text"),
        ({"leyline": {"session": "s", "oops": 1}}, "leyline.oops", "there is no such field"),
        (
            {"leyline": {"session": "s", "edits": [{"messages": [1, 2], "count": 1, "mode": "x"}]}},
            "leyline.edits[0].mode",
            "'amortize', 'repair' or 'forget', not 'x'",
        ),
    ],
)
async def test_a_bad_body_says_where_and_what(
    client: httpx.AsyncClient, change: dict[str, Any], param: str, words: str
) -> None:
    response = await client.post(URL, json=chat(**change))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert param in error["message"]
    assert words in error["message"]


async def test_a_body_that_is_not_json(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    response = await client.post(URL, content='{"messages": [', headers=headers)
    assert response.status_code == 400
    assert "not JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
async def test_numbers_that_are_none(client: httpx.AsyncClient, number: str) -> None:
    content = json.dumps(chat()).replace('"temperature": 0', f'"temperature": {number}')
    headers = {"content-type": "application/json"}
    response = await client.post(URL, content=content, headers=headers)
    assert response.status_code == 400
    assert "temperature: expected a finite number" in response.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[" * 100_000])
async def test_a_body_no_parser_takes(client: httpx.AsyncClient, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await client.post(URL, content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_body"


@pytest.mark.parametrize("content", ["", "null", "[1]", '"text"'])
async def test_a_body_that_is_no_object(client: httpx.AsyncClient, content: str) -> None:
    headers = {"content-type": "application/json"}
    response = await client.post(URL, content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("body: ")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_acts_on_is_told(client: httpx.AsyncClient, stream: bool) -> None:
    sent = {"user": "me", "store": False, "metadata": None, "parallel_tool_calls": False}
    odd = {"a\r\nb": 1, "\u00e9": 1}
    response = await client.post(URL, json=chat(**sent, **odd, min_p=0.1, stream=stream))
    assert response.status_code == 200
    assert response.headers["leyline-ignored"] == "min_p, parallel_tool_calls, user"
    plain = await client.post(URL, json=chat(stream=stream, parallel_tool_calls=True))
    assert "leyline-ignored" not in plain.headers


async def test_nulls_are_defaults(client: httpx.AsyncClient) -> None:
    names = ("model", "n", "stream", "logprobs", "stop", "tools", "temperature", "leyline", "seed")
    response = await client.post(URL, json=chat() | dict.fromkeys(names))
    assert response.status_code == 200


async def test_an_orphan_an_image_and_a_role(client: httpx.AsyncClient) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,xx"}}
    wrong = [
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
        {"role": "user", "content": [image]},
        {"role": "critic", "content": "x"},
    ]
    response = await client.post(URL, json=chat(messages=[*MESSAGES, *wrong]))
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("messages[2].tool_call_id", "invalid_body")
    assert "messages[3].content[0]: a part of type 'image_url'" in error["message"]
    assert "messages[4].role: 'critic' is no role" in error["message"]


async def test_a_body_of_another_type_says_what_to_send(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # curl -d without a header
    response = await client.post(URL, content=json.dumps(chat()), headers=headers)
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


async def test_an_unknown_path_and_method(client: httpx.AsyncClient) -> None:
    missing = await client.post("/v1/embeddings", json={})
    assert missing.status_code == 404
    assert "/v1/embeddings" in missing.json()["error"]["message"]
    wrong = await client.get(URL)
    assert wrong.status_code == 405
    assert "GET" in wrong.json()["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_over_the_context(client: httpx.AsyncClient, stream: bool) -> None:
    long = [{"role": "user", "content": "error in line 12 " * 2000}]
    response = await client.post(URL, json=chat(messages=long, stream=stream))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "4096" in error["message"]
    assert (await client.post(URL, json=chat())).status_code == 200


async def test_a_huge_body_is_refused_unread(client: httpx.AsyncClient) -> None:
    """Reading 10 MB takes the tokenizer 20 s, in which nobody else would be served."""
    huge = "word and more " * 750_000
    bodies = {URL: chat(messages=[{"role": "user", "content": huge}])}
    bodies["/v1/completions"] = {"prompt": huge}
    for url, body in bodies.items():
        error = (await client.post(url, json=body)).json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert error["message"].startswith("10500000 characters are more")


async def test_messages_the_template_refuses(tiny_engine: Engine, tiny_model: LoadedModel) -> None:
    tokenizer = copy.deepcopy(tiny_model.tokenizer)
    refusing = "{% if 'secret' in messages[-1].content %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.chat_template = refusing + tokenizer.chat_template
    app = create_app(ChatService(tiny_engine, "picky", tokenizer))
    secret = [{"role": "user", "content": "a secret"}]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://leyline") as client:
        response = await client.post(URL, json=chat(messages=secret))
        assert response.status_code == 400
        assert response.json()["error"]["message"].endswith("refuses these messages: no")
        assert (await client.post(URL, json=chat())).status_code == 200


async def test_text_no_encoding_holds(client: httpx.AsyncClient) -> None:
    body = json.dumps(chat(messages=[{"role": "user", "content": "half a pair: \ud800"}]))
    headers = {"content-type": "application/json"}
    response = await client.post(URL, content=body, headers=headers)
    assert response.status_code == 200
