"""OpenAI's own client against a real server, with a model that calls a tool."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
import torch

from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.load import LoadedModel

MESSAGES: list[Any] = [{"role": "user", "content": "List the folder."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "list_files",
        "description": "List a folder.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
    },
}
SAYS = ("Let me look.", '\n<tool_call>\n{"name": "list_files", ', '"arguments": {"path": ', '"."}}')
CLOSES = "\n</tool_call>"

calls_a_tool = pytest.mark.parametrize("tiny_engine", ["calls a tool"], indirect=True)


@pytest.fixture
def client(live_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def tiny_engine(tiny_model: LoadedModel, request: pytest.FixtureRequest) -> Engine:
    """As ever; with `calls_a_tool`, an engine whose model always gives the same reply."""
    model = _calling(tiny_model) if hasattr(request, "param") else tiny_model
    return Engine.of(model, EngineConfig(kv_bytes=8 << 20))


def _calling(model: LoadedModel) -> LoadedModel:
    """A model whose next token depends on the last one alone: the reply is a chain of tokens."""
    tokenizer, network = copy.deepcopy(model.tokenizer), copy.deepcopy(model.model)
    tokenizer.add_tokens([*SAYS, CLOSES])
    network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    newline = tokenizer.encode("<|im_start|>assistant\n")[-1]
    chain = [newline, *tokenizer.convert_tokens_to_ids([*SAYS, CLOSES, "<|im_end|>"])]
    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        network.lm_head.weight.zero_()
        embeddings = network.model.embed_tokens.weight
        for token, following in zip(chain, chain[1:], strict=False):
            network.lm_head.weight[following] = embeddings[token]
    return replace(model, model=network, tokenizer=tokenizer)


@pytest.fixture
def tiny_service(tiny_engine: Engine) -> ChatService:
    assert tiny_engine.model is not None
    return ChatService(tiny_engine, "tiny", tiny_engine.model.tokenizer)


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, temperature=0
    )
    assert isinstance(answer.choices[0].message.content, str)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert answer.model_extra is not None
    assert answer.model_extra["leyline"]["prompt"] == answer.usage.prompt_tokens


def test_stream(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=8, temperature=0
    )
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


@calls_a_tool
def test_a_tool_call_and_its_result(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=MESSAGES, tools=[TOOL])
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == SAYS[0]
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "list_files"
    assert json.loads(call.function.arguments) == {"path": "."}
    result = {"role": "tool", "tool_call_id": call.id, "content": "a.py b.py"}
    again = client.chat.completions.create(
        model="tiny", messages=[*MESSAGES, choice.message, result], tools=[TOOL]
    )
    assert again.choices[0].finish_reason == "tool_calls"


@calls_a_tool
def test_a_streamed_tool_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="tiny", messages=MESSAGES, tools=[TOOL]) as stream:
        final = stream.get_final_completion()
    [choice] = final.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == SAYS[0]
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"path": "."}


@calls_a_tool
def test_without_tools_all_of_it_is_text(client: openai.OpenAI) -> None:
    for more in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        answer = client.chat.completions.create(  # type: ignore[call-overload]
            model="tiny", messages=MESSAGES, **more
        )
        assert answer.choices[0].message.content == "".join([*SAYS, CLOSES])
        assert answer.choices[0].finish_reason == "stop"


@calls_a_tool
def test_an_append_only_tool_turn_prefills_only_what_is_new(client: openai.OpenAI) -> None:
    def turn(messages: list[Any], base: int) -> Any:
        commit = {"session": "run", "base_version": base, "version": base + 1}
        return client.chat.completions.create(
            model="tiny", messages=messages, tools=[TOOL], extra_body={"leyline": commit}
        )

    first = turn(MESSAGES, 0)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "a.py b.py"}
    second = turn([*MESSAGES, message.model_dump(exclude_none=True), result], 1)
    receipt = second.model_extra["leyline"]
    assert receipt["removed"] == 0
    assert receipt["reused_exact"] == first.usage.prompt_tokens + len(SAYS) + 1
    assert receipt["prefilled"] == receipt["appended"]


def test_text_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="Read the file", max_tokens=4)
    assert len(answer.choices[0].text) > 0
    chunks = list(client.completions.create(model="tiny", prompt=[1, 2, 3], stream=True))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_models(client: openai.OpenAI) -> None:
    [model] = client.models.list()
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").id == "tiny"


def test_errors_have_their_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-4o'") as missing:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    long: Any = [{"role": "user", "content": "error in line 12 " * 2000}]
    with pytest.raises(openai.BadRequestError, match="4096") as overflow:
        client.chat.completions.create(model="tiny", messages=long)
    assert overflow.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 0.5),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "list_files"}}),
        ("max_tokens", 0),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    client: openai.OpenAI, name: str, value: Any
) -> None:
    with pytest.raises(openai.BadRequestError, match=f"{name}: ") as refused:
        client.chat.completions.create(model="tiny", messages=MESSAGES, **{name: value})
    assert (refused.value.param, refused.value.code) == (name, "invalid_body")


def test_what_is_ignored_is_told(client: openai.OpenAI) -> None:
    answer = client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=2,
        seed=1,
        stop=["a", "b", "c", "d", "e"],
        tools=[TOOL],
        parallel_tool_calls=False,
        user="me",
    )
    assert answer.headers["leyline-ignored"] == "parallel_tool_calls, user"
    assert answer.parse().usage is not None


async def test_async(live_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{live_url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=4, stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
