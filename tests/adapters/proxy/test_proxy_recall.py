"""The model recalls what a policy cut; its client sees nothing of it but the usage."""

import json

import openai
import pytest
from recalling_model import call, recalling, reply
from starlette.responses import JSONResponse

from leyline_agent.recall.tool import NAME

BASH = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}


def streamed(client, messages):
    """The message and the usage of a streamed reply."""
    calls, usage, reasons = {}, None, []
    for chunk in client.chat.completions.create(
        model="m", messages=messages, tools=[BASH], stream=True
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for piece in choice.delta.tool_calls or ():
                known = calls.setdefault(piece.index, call(piece.function.name, piece.id))
                before = known["function"]["arguments"].removeprefix("{}")
                known["function"]["arguments"] = before + (piece.function.arguments or "")
    assert reasons == ["tool_calls"]
    return reply(*calls.values()), usage


def whole(client, messages):
    made = client.chat.completions.create(model="m", messages=messages, tools=[BASH])
    return made.choices[0].message.model_dump(exclude_none=True), made.usage


@pytest.mark.parametrize("besides", [False, True])
@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_recall_is_hidden(start, provider, task, observed, ask, besides):
    provider.model = recalling(besides=besides)
    running = start(provider.url, recall=True)
    client = running.client()
    messages = task
    usages = []
    for _ in range(4):
        message, usage = ask(client, messages)
        assert [c["function"]["name"] for c in message["tool_calls"]] == ["bash"]
        usages.append(usage)
        messages = observed(messages, message)
    hidden = 0 if besides else 2
    assert len(provider.requests) == 4 + hidden
    assert all(r["tools"][0] == BASH for r in provider.requests)
    assert {r["tools"][1]["function"]["name"] for r in provider.requests} == {NAME}
    recalled = [m for m in provider.requests[-1]["messages"] if m["role"] == "tool"]
    assert [m["content"].count("output of") for m in recalled if "r" in m["tool_call_id"]]
    [session] = running.all
    assert NAME not in json.dumps(session.history)
    sent = [len(r["messages"]) for r in provider.requests]
    assert session.stats().recalls == 2
    if hidden:
        assert sent == [2, 4, 6, 8, 10, 12]
        assert usages[2].prompt_tokens > 2 * usages[1].prompt_tokens


def test_the_client_is_told(start, provider, task, turns):
    provider.model = recalling(besides=False)
    running = start(provider.url, recall=True)
    client = running.client(default_headers={"Leyline-Receipt": "1"})
    messages = turns(client, task, 2, tools=[BASH])
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=messages, tools=[BASH]
    )
    assert raw.headers["leyline-recalls"] == "1"
    assert raw.headers["leyline-edits"] == "1"
    assert raw.parse().model_extra["leyline"]["version"] == 4


def test_a_hidden_call_that_fails_is_told_as_it_is(start, provider, task, turns):
    provider.model = recalling(besides=False)
    running = start(provider.url, recall=True)
    client = running.client()
    messages = turns(client, task, 2, tools=[BASH])
    good = provider.handle
    count = iter(range(9))

    async def limited(request, body):
        if next(count) == 1:
            provider.handle = good
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after": "1"})
        return JSONResponse(provider.model.create(**json.loads(body)))

    provider.handle = limited
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.chat.completions.create(model="m", messages=messages, tools=[BASH])
    assert turns(client, messages, 1, tools=[BASH])
    [session] = running.all
    assert session.stats().failed == 1
    assert NAME not in json.dumps(session.history)


def test_without_tools_nothing_is_declared(start, provider, task, turns):
    running = start(provider.url, recall=True)
    turns(running.client(), task, 3)
    assert all("tools" not in request for request in provider.requests)
