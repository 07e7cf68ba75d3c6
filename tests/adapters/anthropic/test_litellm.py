"""Anthropic's models through litellm, which speaks chat to its callers and Messages to the API."""

import litellm
import pytest

import leyline_agent as leyline
from leyline_adapters.anthropic.adapter import BETA, KIND, AnthropicAdapter

pytestmark = [
    # litellm's own models and clients warn; what they warn of is not ours.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TASK = {"role": "user", "content": "Fix the bug."}
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}


@pytest.fixture
def options(server):
    return {
        "model": "anthropic/claude-sonnet-4-5",
        "api_base": server,
        "api_key": "none",
        "tools": [TOOL],
    }


def results(messages, reply):
    message = reply.choices[0].message
    told = [
        {"role": "tool", "tool_call_id": call.id, "content": f"output of {call.id}"}
        for call in message.tool_calls
    ]
    return [*messages, message, *told]


def outputs(request):
    blocks = [b for m in request["messages"] if m["role"] == "user" for b in m["content"]]
    return [b["content"] for b in blocks if not isinstance(b, str) and b["type"] == "tool_result"]


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_calls(options, scripted, stub_results, stream, asked):
    scripted.refusal = lambda body: ""
    if asked:
        options["stream_options"] = {"include_usage": True}
    messages = [TASK]
    with leyline.instrument_litellm(policies=stub_results, adapter="anthropic") as handle:
        for _ in range(3):
            reply = litellm.completion(messages=messages, stream=stream, **options)
            if stream:
                reply = litellm.stream_chunk_builder(list(reply))
            messages = results(messages, reply)
    assert outputs(scripted.requests[-1])[0] == "stub"
    (session,) = handle.sessions
    assert session.version == 3
    first, *_, last = session.receipts
    assert first.prompt > 0
    assert (last.cache_read, last.cache_held) != (None, None)
    assert last.cache_read > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_async(options, scripted, stub_results, stream):
    scripted.refusal = lambda body: ""
    with leyline.instrument_litellm(policies=stub_results) as handle:
        reply = await litellm.acompletion(messages=[TASK], stream=stream, **options)
        if stream:
            reply = litellm.stream_chunk_builder([chunk async for chunk in reply])
    assert reply.choices[0].message.tool_calls[0].id == "c0"
    assert handle.sessions[0].receipts[0].prompt > 0


@pytest.mark.parametrize("stream", [False, True])
def test_context_editing_on_the_server(options, scripted, stream):
    applied = [{"type": KIND, "cleared_tool_uses": 1, "cleared_input_tokens": 7}]
    scripted.extras = {"context_management": {"applied_edits": applied}}
    adapter = AnthropicAdapter(server_side=True)
    with leyline.instrument_litellm(policies="clear_tool_uses", adapter=adapter) as handle:
        reply = litellm.completion(messages=[TASK], stream=stream, **options)
        if stream:
            list(reply)
    (request,) = scripted.requests
    assert request["context_management"]["edits"][0]["type"] == KIND
    assert BETA in request["headers"]["anthropic-beta"]
    (receipt,) = handle.sessions[0].receipts
    assert receipt.prompt > 0
    assert receipt.removed == (0 if stream else 7)  # litellm's chunks leave it out.
