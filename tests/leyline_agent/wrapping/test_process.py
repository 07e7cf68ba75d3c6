import asyncio
import subprocess
import sys
import textwrap
import threading

import litellm
import openai
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


@pytest.fixture
def at_server(server):
    return {"model": "openai/m", "api_base": server, "api_key": "none"}


def loop(complete, task, observe, turns=4):
    messages = task
    for _ in range(turns):
        messages = observe(messages, complete(messages=messages).choices[0].message)
    return messages


EDITED = ["stub", "stub", "output of c2"]


@pytest.mark.parametrize("called", ["by name", "by module"])
def test_litellm(at_server, model, task, observe, outputs, stub, called, tmp_path):
    with leyline.instrument_litellm(policies=stub, journal=tmp_path) as handle:
        called_now = {"by name": imported_by_name, "by module": litellm.completion}[called]
        loop(lambda messages: called_now(messages=messages, **at_server), task, observe)
        assert outputs(model.requests[-1]) == EDITED
    (session,) = handle.sessions
    assert session.version == 4
    assert session.id.startswith("litellm-")
    assert [path.stem for path in tmp_path.iterdir()] == [session.id]
    litellm.completion(messages=task, **at_server)
    assert handle.sessions == (session,)
    assert session.version == 4


def test_openai(client, model, task, observe, outputs, stub):
    with leyline.instrument_openai(policies=stub) as handle:
        loop(
            lambda messages: client.chat.completions.create(model="m", messages=messages),
            task,
            observe,
        )
    assert outputs(model.requests[-1]) == EDITED
    assert [session.version for session in handle.sessions] == [4]


def test_both_at_once_edit_a_call_once(at_server, task, stub):
    """litellm calls an OpenAI client in turn."""
    with (
        leyline.instrument_litellm(policies=stub) as outer,
        leyline.instrument_openai(policies=stub) as inner,
    ):
        litellm.completion(messages=task, **at_server)
        list(litellm.completion(messages=task, stream=True, **at_server))
    assert sum(session.stats().turns for session in outer.sessions) == 2
    assert inner.sessions == ()
    assert not inner.reached


def test_openai_alone_takes_up_what_litellm_calls(at_server, task):
    with leyline.instrument_openai() as handle:
        litellm.completion(messages=task, **at_server)
    assert handle.sessions[0].version == 1


async def test_async_conversations_side_by_side(at_server, model, observe, outputs, stub):
    async def run(number):
        messages = [{"role": "user", "content": f"Task {number}."}]
        for _ in range(3):
            reply = await litellm.acompletion(messages=messages, **at_server)
            messages = observe(messages, reply.choices[0].message)

    with leyline.instrument_litellm(policies=stub) as handle:
        await asyncio.gather(*map(run, range(5)))
    assert [session.version for session in handle.sessions] == [3] * 5
    assert sum(outputs(r)[0] == "stub" for r in model.requests if len(outputs(r)) == 2) == 5


def test_threads(client, model, observe, outputs, stub):
    def run(number):
        messages = [{"role": "user", "content": f"Task {number}."}]
        for _ in range(3):
            reply = client.chat.completions.create(model="m", messages=messages)
            messages = observe(messages, reply.choices[0].message)

    with leyline.instrument_openai(policies=stub) as handle:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [session.version for session in handle.sessions] == [3] * 5


def test_one_task_tried_twice_is_two_conversations(client, task, observe, stub):
    with leyline.instrument_openai(policies=stub) as handle:
        for _ in range(2):
            loop(
                lambda messages: client.chat.completions.create(model="m", messages=messages),
                task,
                observe,
                turns=3,
            )
    assert [session.version for session in handle.sessions] == [3, 3]


def test_a_wrapped_function_inside_has_its_own_calls(client, task, stub):
    @leyline.wrap(policies=stub)
    def agent():
        return client.chat.completions.create(model="m", messages=task)

    with leyline.instrument_openai(policies=stub) as handle:
        agent()
    assert agent.leyline.sessions[0].version == 1
    assert handle.sessions == ()


def test_it_is_found_in_a_running_loop(client, task):
    with leyline.instrument_openai() as handle:
        client.chat.completions.create(model="m", messages=task)
    assert handle.session is handle.sessions[0]
    assert leyline.current_session() is None


def test_an_engine_in_this_process_answers(client, model, task):
    adapter = MockAdapter(DeterministicModel("From the engine."))
    with leyline.instrument_openai(adapter=adapter):
        reply = client.chat.completions.create(model="m", messages=task)
    assert reply.choices[0].message.content == "From the engine."
    assert model.requests == []


def test_twice_is_an_error_that_says_what_to_do():
    handle = leyline.instrument_openai()
    with pytest.raises(leyline.LeylineError, match=r"call uninstrument\(\) on what"):
        leyline.instrument_openai(policies="keep_last:n=5")
    handle.uninstrument()
    handle.uninstrument()
    with leyline.instrument_openai():
        handle.uninstrument()
        with pytest.raises(leyline.LeylineError, match="already"):
            leyline.instrument_openai()


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"policies": "keep_lsat"}, leyline.PolicyError),
        ({"adapter": "opneai"}, leyline.AdapterError),
        ({"journal": __file__}, leyline.LeylineError),
        ({"observatoins": "user"}, TypeError),
    ],
)
def test_what_does_not_fit_is_told_at_once_and_nothing_is_instrumented(options, kind):
    with pytest.raises(kind):
        leyline.instrument_openai(**options)
    leyline.instrument_openai().uninstrument()


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("leyline_agent.wrapping.process.find_spec", lambda name: None)
    with pytest.raises(leyline.LeylineError, match="pip install anthropic"):
        leyline.instrument_anthropic()


def test_calls_that_are_no_turns_are_told(client, model):
    with leyline.instrument_openai() as handle, pytest.warns(leyline.LeylineWarning):
        with pytest.raises(openai.APIConnectionError):  # The model's server knows no such message.
            client.chat.completions.create(model="m", messages=[{"content": "no role"}])
    assert "TrajectoryError" in handle.bypassed[0]


def test_nothing_is_imported_and_what_is_imported_later_is_covered():
    code = """
        import sys
        import leyline_agent as leyline
        handles = [leyline.instrument_litellm(), leyline.instrument_openai(),
                   leyline.instrument_anthropic()]
        print(not {"litellm", "openai", "anthropic"} & set(sys.modules))
        import anthropic
        client = anthropic.Anthropic(api_key="none", base_url="http://127.0.0.1:9", max_retries=0)
        try:
            ask = [{"role": "user", "content": "?"}]
            client.messages.create(model="m", max_tokens=1, messages=ask)
        except anthropic.APIConnectionError:
            print(handles[2].sessions[0].stats().failed)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["True", "1"], run.stderr


# Bad input, with the real clients


def test_an_upstream_that_slows_down(faulty_server, task, model):
    base, faults = faulty_server
    client = openai.OpenAI(api_key="none", base_url=base, max_retries=0)
    faults.append((429, {"retry-after": "7"}))
    with leyline.instrument_openai() as handle:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="m", messages=task)
        assert caught.value.response.headers["retry-after"] == "7"
        client.chat.completions.create(model="m", messages=task)
    (session,) = handle.sessions
    assert (session.stats().turns, session.stats().failed) == (1, 1)


def test_an_upstream_that_is_too_slow(faulty_server, task):
    base, faults = faulty_server
    client = openai.OpenAI(api_key="none", base_url=base, max_retries=0, timeout=0.2)
    faults.append("sleep")
    with leyline.instrument_openai() as handle:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="m", messages=task)
        client.chat.completions.create(model="m", messages=task)
    assert (handle.sessions[0].stats().turns, handle.sessions[0].stats().failed) == (1, 1)


def test_a_stream_that_breaks(faulty_server, task):
    base, faults = faulty_server
    client = openai.OpenAI(api_key="none", base_url=base, max_retries=0)
    faults.append("break")
    with leyline.instrument_openai() as handle:
        with pytest.raises(Exception, match="peer closed|incomplete") as caught:
            list(client.chat.completions.create(model="m", messages=task, stream=True))
        assert not isinstance(caught.value, leyline.LeylineError)
        list(client.chat.completions.create(model="m", messages=task, stream=True))
    assert (handle.sessions[0].stats().turns, handle.sessions[0].stats().failed) == (1, 1)


def test_through_litellm(faulty_server, task):
    base, faults = faulty_server
    at = {"model": "openai/m", "api_base": base, "api_key": "none", "max_retries": 0}
    faults.append((429, {"retry-after": "7"}))
    with leyline.instrument_litellm() as handle:
        with pytest.raises(litellm.RateLimitError) as caught:
            litellm.completion(messages=task, **at)
        assert caught.value.litellm_response_headers["retry-after"] == "7"
        litellm.completion(messages=task, **at)
    assert (handle.sessions[0].stats().turns, handle.sessions[0].stats().failed) == (1, 1)


# Receipts of plain clients' streams


@pytest.mark.parametrize("asked", [False, True])
def test_a_stream_tells_its_usage_where_it_was_asked_to(plain_server, task, asked):
    """The caller's stream is left as it is."""
    client = openai.OpenAI(api_key="none", base_url=plain_server.url, max_retries=0)
    options = {"stream_options": {"include_usage": True}} if asked else {}
    with leyline.instrument_openai() as handle:
        list(client.chat.completions.create(model="m", messages=task, stream=True, **options))
    (receipt,) = handle.sessions[0].receipts
    assert receipt.reason is (leyline.Reason.ASKED if asked else leyline.Reason.NO_RECEIPT)
    assert (receipt.prompt > 0, receipt.cache_read) == (asked, 0 if asked else None)
    assert plain_server.bodies[-1].get("stream_options") == options.get("stream_options")
