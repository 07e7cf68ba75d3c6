"""Recalls are made inside the real clients' calls: plain, streamed, async, in this process."""

import asyncio
import json

import litellm
import openai
import pytest
from recalling import TASK, TOOLS, ids_in, output, recalls, runs

import leyline_agent as leyline
from leyline_agent.recall.tool import UNANSWERED
from leyline_agent.response import as_dict
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.wrapping.streams import Assembly

pytestmark = [
    # litellm's own models and clients warn; what they warn of is not ours.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SCRIPT = (runs(), runs(), recalls(0), runs("make"), recalls(0, beside=["make"]), "done")
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
def script():
    return SCRIPT


@pytest.fixture
def model(script):
    return DeterministicModel(*script)


@pytest.fixture
def at_server(server):
    """Options that send litellm to the local server."""
    return {"model": "openai/m", "api_base": server, "api_key": "none"}


def assembled(chunks):
    """A stream as one response."""
    whole = Assembly()
    for chunk in chunks:
        whole.add(chunk)
    return whole.response()


def add(messages, response, usages):
    """What a harness adds after a reply: the reply and the results of the tools it runs."""
    body = as_dict(response)
    usages.append(as_dict(body.get("usage") or {}))
    reply = json.loads(json.dumps(body["choices"][0]["message"], default=as_dict))
    messages.append({k: v for k, v in reply.items() if k in ("role", "content", "tool_calls")})
    calls = reply.get("tool_calls") or ()
    for call in calls:
        assert call["function"]["name"] == "bash"
        number = sum(m["role"] == "tool" for m in messages)
        answered = {"role": "tool", "tool_call_id": call["id"]}
        messages.append({**answered, "content": output(number)})
    return bool(calls)


def looped(create, streamed, **options):
    """A synchronous loop; its messages and usages."""
    messages, usages = list(TASK), []
    going = True
    while going:
        made = create(messages=messages, tools=TOOLS, **options, **(STREAMED if streamed else {}))
        going = add(messages, assembled(made) if streamed else made, usages)
    return messages, usages


async def looped_async(create, streamed, **options):
    messages, usages = list(TASK), []
    going = True
    while going:
        more = STREAMED if streamed else {}
        made = await create(messages=messages, tools=TOOLS, **options, **more)
        if streamed:
            made = assembled([chunk async for chunk in made])
        going = add(messages, made, usages)
    return messages, usages


def check(wrapped, model, result):
    """The harness saw no recall, the model saw the outputs, the figures are those of all calls."""
    messages, usages = result
    (session,) = wrapped.leyline.sessions
    assert "leyline_recall" not in json.dumps(messages)
    assert len(model.requests) == 6
    assert all(r["tools"][-1]["function"]["name"] == "leyline_recall" for r in model.requests)
    assert model.requests[3]["messages"][-1]["content"] == output(0)
    beside = [m for m in model.requests[5]["messages"] if m.get("tool_calls")][-1]
    assert len(beside["tool_calls"]) == 2
    stats = session.stats()
    assert (stats.turns, stats.hidden, stats.recalls) == (5, 1, 2)
    assert len(session.receipts) == 6
    prompts = [receipt.prompt for receipt in session.receipts]
    told = [usage["prompt_tokens"] for usage in usages]
    assert told == [prompts[0], prompts[1], prompts[2] + prompts[3], *prompts[4:]]
    assert [m["role"] for m in session.history] == [m["role"] for m in messages]
    assert ids_in(session.view)


@pytest.fixture(params=[False, True], ids=["plain", "streamed"])
def streamed(request):
    return request.param


@pytest.fixture(autouse=True)
def _quiet():
    """A recall that recurs warns; in one test it is looked at."""
    with pytest.warns(leyline.LeylineWarning, match="asked again"):
        yield


def test_openai(client, model, streamed):
    wrapped = leyline.wrap(policies="keep_last:n=1", recall=True)(
        lambda: looped(client.chat.completions.create, streamed, model="m")
    )
    check(wrapped, model, wrapped())


async def test_openai_async(async_client, model, streamed):
    wrapped = leyline.wrap(policies="keep_last:n=1", recall=True)(
        lambda: looped_async(async_client.chat.completions.create, streamed, model="m")
    )
    check(wrapped, model, await wrapped())


def test_litellm(at_server, model, streamed):
    wrapped = leyline.wrap(policies="keep_last:n=1", recall=True)(
        lambda: looped(litellm.completion, streamed, **at_server)
    )
    check(wrapped, model, wrapped())


def test_litellm_async(at_server, model, streamed):
    wrapped = leyline.wrap(policies="keep_last:n=1", recall=True)(
        lambda: looped_async(litellm.acompletion, streamed, **at_server)
    )
    check(wrapped, model, asyncio.run(wrapped()))


@pytest.mark.parametrize("library", ["openai", "litellm"])
def test_an_engine_in_this_process(model, streamed, library):
    client = openai.OpenAI(api_key="none")

    @leyline.wrap(policies="keep_last:n=1", recall=True, adapter=MockAdapter(model))
    def run():
        create = client.chat.completions.create if library == "openai" else litellm.completion
        return looped(create, streamed, model="openai/m")

    check(run, model, run())


@pytest.mark.parametrize("library", ["openai", "litellm"])
async def test_an_engine_in_this_process_async(model, streamed, library):
    client = openai.AsyncOpenAI(api_key="none")

    @leyline.wrap(policies="keep_last:n=1", recall=True, adapter=MockAdapter(model))
    async def run():
        create = client.chat.completions.create if library == "openai" else litellm.acompletion
        return await looped_async(create, streamed, model="openai/m")

    check(run, model, await run())


@pytest.mark.parametrize("script", [(runs(), runs(), *[recalls(0)] * 5)])
def test_no_loop_takes_silence_for_an_end(client, script, streamed):
    bound = leyline.Recall(max_per_turn=2)
    wrapped = leyline.wrap(policies="keep_last:n=1", recall=bound)(
        lambda: looped(client.chat.completions.create, streamed, model="m")
    )
    messages, _ = wrapped()
    (session,) = wrapped.leyline.sessions
    assert messages[-1]["content"] == f"Let me see that again.\n{UNANSWERED}"
    assert session.history[-1]["content"] == messages[-1]["content"]
    assert session.stats().hidden == 4


def test_a_raw_response(client, model):
    def create(**options):
        return client.chat.completions.with_raw_response.create(**options).parse()

    wrapped = leyline.wrap(policies="keep_last:n=1", recall=True)(
        lambda: looped(create, False, model="m")
    )
    check(wrapped, model, wrapped())


def test_a_model_call_through_a_client(client, model, streamed):
    @leyline.wrap(policies="keep_last:n=1", recall=True)
    def ask(messages, tools=None, **options):
        return client.chat.completions.create(messages=messages, tools=tools, **options)

    check(ask, model, looped(ask, streamed, model="m"))


def test_a_model_call_through_a_client_of_its_own(model, streamed):
    """Nothing is patched there: the function is called again."""

    @leyline.wrap(policies="keep_last:n=1", recall=True)
    def ask(messages, tools=None, **options):
        return model.create(messages=messages, tools=tools, **options)

    check(ask, model, looped(ask, streamed, model="m"))


async def test_a_model_call_async_through_a_client_of_its_own(model, streamed):
    @leyline.wrap(policies="keep_last:n=1", recall=True)
    async def ask(messages, tools=None, **options):
        return await model.acreate(messages=messages, tools=tools, **options)

    check(ask, model, await looped_async(ask, streamed, model="m"))


def test_a_generator_of_chunks(model):
    @leyline.wrap(policies="keep_last:n=1", recall=True)
    def ask(messages, tools=None, **options):
        yield from model.create(messages=messages, tools=tools, **options)

    check(ask, model, looped(ask, True))


async def test_an_async_generator_of_chunks(model):
    @leyline.wrap(policies="keep_last:n=1", recall=True)
    async def ask(messages, tools=None, **options):
        async for chunk in await model.acreate(messages=messages, tools=tools, **options):
            yield chunk

    async def create(**options):
        return ask(**options)

    check(ask, model, await looped_async(create, True))
