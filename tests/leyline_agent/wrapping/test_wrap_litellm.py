import os
import subprocess
import sys
import textwrap

import litellm
import pytest

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, MockAdapter

pytestmark = [
    # litellm's own models and clients warn; what they warn of is not ours.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

imported_by_name = litellm.completion
"""Bound before anything is wrapped, as `from litellm import completion` does."""


@pytest.fixture
def at_server(server):
    """Options that send litellm to the local server."""
    return {"model": "openai/m", "api_base": server, "api_key": "none"}


def loop(complete, task, observe, options, turns=4):
    messages = task
    for _ in range(turns):
        reply = complete(messages=messages, **options)
        messages = observe(messages, reply.choices[0].message)
    return messages


def edited(model, outputs):
    return outputs(model.requests[-1]) == ["stub", "stub", "output of c2"]


def test_a_loop_with_litellm(at_server, model, task, observe, outputs, stub):
    wrapped = leyline.wrap(policies=stub)(
        lambda: loop(litellm.completion, task, observe, at_server)
    )
    wrapped()
    assert edited(model, outputs)
    (session,) = wrapped.leyline.sessions
    assert session.version == 4
    assert session.receipts[1].reused_exact > 0


def test_a_call_with_tools(at_server, model, task, observe, outputs, stub):
    """Some releases of litellm cannot make one without a package that they do not require."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    options = {**at_server, "tools": [tool]}
    leyline.wrap(policies=stub)(lambda: loop(litellm.completion, task, observe, options))()
    assert edited(model, outputs)
    assert model.requests[-1]["tools"] == [tool]


def test_a_function_imported_by_name_is_covered(at_server, model, task, observe, outputs, stub):
    wrapped = leyline.wrap(policies=stub)(lambda: loop(imported_by_name, task, observe, at_server))
    wrapped()
    assert edited(model, outputs)


def test_positional_arguments(at_server, model, task):
    @leyline.wrap
    def run():
        name = at_server["model"]
        rest = {k: v for k, v in at_server.items() if k != "model"}
        return litellm.completion(name, task, **rest)

    assert run().choices[0].message.content == "I look."
    assert run.leyline.sessions[0].version == 1


def test_a_mocked_response(task, stub):
    @leyline.wrap(policies=stub)
    def run():
        return litellm.completion(model="gpt-4o", messages=task, mock_response="fine")

    assert run().choices[0].message.content == "fine"
    assert run.leyline.sessions[0].history[-1]["content"] == "fine"


async def test_async_and_streams(at_server, model, task, stub):
    @leyline.wrap(policies=stub)
    async def run():
        await litellm.acompletion(messages=task, **at_server)
        stream = await litellm.acompletion(messages=task, stream=True, **at_server)
        texts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(texts) == "I look."

    await run()
    (session,) = run.leyline.sessions
    assert session.version == 2
    assert session.history[-1]["tool_calls"][0]["id"] == "c1"


def test_a_stream(at_server, task, stub):
    @leyline.wrap(policies=stub)
    def run():
        stream = litellm.completion(messages=task, stream=True, **at_server)
        assert isinstance(stream, litellm.CustomStreamWrapper)
        return litellm.stream_chunk_builder(list(stream))

    assert run().choices[0].message.tool_calls[0].function.name == "bash"
    assert run.leyline.sessions[0].version == 1


@pytest.mark.parametrize("usage", [False, True])
async def test_the_receipt_of_a_stream(model, task, at_server, usage, monkeypatch):
    adapter = MockAdapter(model)

    def create(stream, leyline, **request):
        return adapter.stream({**request, "extra_body": {"leyline": leyline}})

    monkeypatch.setattr(model, "create", create)

    class Plain:
        name, capabilities = "plain", adapter.capabilities
        prepare, receipt = adapter.prepare, adapter.receipt

    options = {"stream": True, "stream_options": {"include_usage": True} if usage else None}

    @leyline.wrap(adapter=Plain())
    async def run():
        list(litellm.completion(messages=task, **options, **at_server))
        stream = await litellm.acompletion(messages=task, **options, **at_server)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].finish_reason:
                break

    await run()
    (session,) = run.leyline.sessions
    assert [receipt.repair for receipt in session.receipts] == ["boundary"] * 2
    assert session.receipts[0].prompt == session.receipts[0].prefilled > 0


def test_what_litellm_calls_in_turn_is_not_edited_twice(at_server, model, task):
    adapter = MockAdapter()

    class Plain:
        name, capabilities = "plain", adapter.capabilities
        prepare, receipt = adapter.prepare, adapter.receipt

    @leyline.wrap(adapter=Plain())
    def run():
        litellm.completion(messages=task, **at_server)

    run()
    assert len(adapter.commits) == 1
    assert model.requests[0]["leyline"]["version"] == 1


def test_the_router_and_retries_are_covered(at_server, model, task, stub):
    router = litellm.Router(
        model_list=[{"model_name": "any", "litellm_params": at_server}], num_retries=0
    )

    @leyline.wrap(policies=stub)
    def run():
        return router.completion(model="any", messages=task)

    assert run().choices[0].message.content == "I look."
    assert len(run.leyline.sessions) == 1


def test_an_error_passes_and_costs_only_the_turn(task, stub):
    @leyline.wrap(policies=stub)
    def run():
        litellm.completion(
            model="gpt-4o", messages=task, mock_response=litellm.RateLimitError("no", "x", "m")
        )

    with pytest.raises(litellm.RateLimitError):
        run()
    assert run.leyline.sessions[0].stats().failed == 1


def test_an_engine_in_this_process_takes_the_calls_over(model, task, observe, stub):
    adapter = MockAdapter(model)
    wrapped = leyline.wrap(policies=stub, adapter=adapter)(
        lambda: loop(litellm.completion, task, observe, {"model": "any"})
    )
    messages = wrapped()
    assert isinstance(messages[2], litellm.Message)
    (session,) = wrapped.leyline.sessions
    assert session.receipts[-1].reused_spliced > 0


async def test_taken_over_responses_are_the_librarys(task, stub):
    @leyline.wrap(policies=stub, adapter=MockAdapter(DeterministicModel("fine", repeat=True)))
    async def run():
        made = litellm.completion(model="any", messages=task)
        late = await litellm.acompletion(model="any", messages=task)
        chunks = list(litellm.completion(model="any", messages=task, stream=True))
        stream = await litellm.acompletion(model="any", messages=task, stream=True)
        return [made, late], chunks + [chunk async for chunk in stream]

    whole, chunks = await run()
    assert all(isinstance(made, litellm.ModelResponse) for made in whole)
    assert all(isinstance(chunk, litellm.ModelResponseStream) for chunk in chunks)
    assert whole[0].usage.prompt_tokens > 0
    assert run.leyline.sessions[0].version == 4


def test_a_library_imported_inside_the_loop_is_covered():
    code = """
        import sys
        import leyline_agent as leyline
        from leyline_agent.testing import MockAdapter

        @leyline.wrap(adapter=MockAdapter())
        def run():
            assert not {"litellm", "openai"} & set(sys.modules)
            from litellm import completion
            from openai import OpenAI
            ask = [{"role": "user", "content": "hi"}]
            made = completion(model="any", messages=ask)
            client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
            also = client.chat.completions.create(model="any", messages=ask)
            assert type(made).__name__ == "ModelResponse", made
            assert type(also).__name__ == "ChatCompletion", also
            loaders = {type(sys.modules[n].__spec__.loader).__name__ for n in ("litellm", "openai")}
            assert loaders == {"SourceFileLoader"}, loaders

        run()
        print(run.leyline.sessions[0].version)
    """
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == ("2", 0), done.stderr
