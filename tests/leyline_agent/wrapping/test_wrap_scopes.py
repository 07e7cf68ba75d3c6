"""Where a scope reaches: generators, tasks, threads, nested loops; and where it does not."""

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import leyline_agent as leyline
from leyline_agent.testing import MockAdapter
from leyline_agent.wrapping.scope import active


@pytest.fixture
def turns(client, task, observe):
    """Makes a number of turns of one conversation; the last messages."""

    def make(number=1, messages=task):
        for _ in range(number):
            reply = client.chat.completions.create(model="m", messages=messages)
            messages = observe(messages, reply.choices[0].message)
        return messages

    return make


def test_a_generator_loop(turns, task, model, outputs, stub):
    @leyline.wrap(policies=stub)
    def run(number):
        messages = task
        for step in range(number):
            messages = turns(1, messages)
            got = yield step
            assert got == (None if step == 0 else f"sent {step}")
        return messages

    assert inspect.isgeneratorfunction(run)
    steps = run(4)
    assert next(steps) == 0
    for step in range(1, 4):
        assert active() is None
        turns()
        assert steps.send(None if step == 1 else f"sent {step - 1}") == step
    assert outputs(model.requests[-1]) == ["stub", "stub", "output of c4"]
    with pytest.raises(StopIteration) as stop:
        steps.send("sent 3")
    assert len(stop.value.value) == 10
    assert run.leyline.sessions[0].version == 4


def test_errors_thrown_into_a_generator_loop_are_its_own_to_handle(turns):
    closed = []

    @leyline.wrap
    def run():
        try:
            yield 1
        except ValueError:
            turns()
            yield 2
        finally:
            turns()
            closed.append(active() is not None)

    steps = run()
    next(steps)
    assert steps.throw(ValueError("x")) == 2
    steps.close()
    assert closed == [True]
    assert run.leyline.sessions[0].version == 2
    assert active() is None


async def test_an_async_generator_loop(async_client, task, observe, model, outputs, stub):
    caught = []

    @leyline.wrap(policies=stub)
    async def run():
        messages = task
        while True:
            reply = await async_client.chat.completions.create(model="m", messages=messages)
            messages = observe(messages, reply.choices[0].message)
            try:
                caught.append((yield len(messages)))
            except ValueError as error:
                caught.append(error)

    assert inspect.isasyncgenfunction(run)
    steps = run()
    assert await anext(steps) == 4
    assert active() is None
    assert await steps.asend("sent") == 6
    error = ValueError("x")
    assert await steps.athrow(error) == 8
    assert [length async for length, _ in _limited(steps, 1)] == [10]
    await steps.aclose()
    assert caught == ["sent", error, None]
    assert outputs(model.requests[-1]) == ["stub", "stub", "output of c2"]
    assert run.leyline.sessions[0].version == 4


async def _limited(steps, number):
    for place in range(number):
        yield await anext(steps), place


def test_threads_started_in_a_loop(turns, stub):
    @leyline.wrap(policies=stub)
    def run():
        thread = threading.Thread(target=turns, args=(3,))
        thread.start()
        thread.join()
        timer = threading.Timer(0, turns)
        timer.start()
        timer.join()

    run()
    assert sum(s.stats().turns for s in run.leyline.sessions) == 4


def test_a_pool_made_before_the_loop(turns, stub):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: None).result()

        @leyline.wrap(policies=stub)
        def run():
            return [pool.submit(active).result(), *pool.map(turns, [3])]

        assert run()[0] is not None
        assert pool.submit(active).result() is None
    assert run.leyline.sessions[0].version == 3


def test_a_worker_started_in_a_loop_does_not_keep_it(stub):
    with ThreadPoolExecutor(1) as pool:
        run = leyline.wrap(policies=stub)(lambda: pool.submit(active).result())
        with pytest.warns(leyline.LeylineWarning, match="made no model call"):
            assert run() is not None
        assert pool.submit(active).result() is None


async def test_a_loop_that_calls_in_other_threads(turns, stub):
    @leyline.wrap(policies=stub)
    async def run():
        messages = await asyncio.to_thread(turns, 1)
        return await asyncio.get_running_loop().run_in_executor(None, turns, 2, messages)

    await run()
    assert run.leyline.sessions[0].version == 3


async def test_concurrent_loops_do_not_mix(async_client, observe, stub):
    @leyline.wrap(policies=stub)
    async def run(name):
        messages = [{"role": "user", "content": f"Task of {name}."}]
        for _ in range(3):
            reply = await async_client.chat.completions.create(model="m", messages=messages)
            messages = observe(messages, reply.choices[0].message)
            await asyncio.sleep(0)
        return leyline.current_session()

    sessions = await asyncio.gather(*map(run, "abc"))
    assert [s.history[0]["content"] for s in sessions] == [f"Task of {n}." for n in "abc"]
    assert [s.version for s in sessions] == [3, 3, 3]


def test_of_nested_loops_the_innermost_wins(turns, stub):
    @leyline.wrap
    def inner():
        turns(2)

    @leyline.wrap(policies=stub)
    def outer():
        messages = turns(2)
        inner()
        turns(2, messages)

    outer()
    assert [s.version for s in outer.leyline.sessions] == [4]
    assert [s.version for s in inner.leyline.sessions] == [2]
    assert len(outer.leyline.sessions[0].edits) == 2
    assert inner.leyline.sessions[0].edits == ()


def test_a_wrapped_call_inside_a_wrapped_loop(client, task, observe, model, stub):
    @leyline.wrap(policies=stub)
    def call(messages):
        return client.chat.completions.create(model="m", messages=messages)

    @leyline.wrap(policies=stub)
    def loop():
        messages = task
        for _ in range(3):
            messages = observe(messages, call(messages).choices[0].message)

    loop()
    assert [s.version for s in call.leyline.sessions] == [3]
    assert list(loop.leyline.sessions) == []


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        (
            {"adapter": "no_such"},
            "no adapter named 'no_such'; installed: anthropic, bundled, http, .*openai",
        ),
        ({"adapter": 3}, "3 is no adapter; pass an Adapter or the name of one"),
        ({"adapter": MockAdapter}, "MockAdapter is a class; pass an adapter made of it"),
        ({"policies": "no_such"}, "no policy named 'no_such'; installed: .*keep_all"),
        ({"policies": "keep_last:m=1"}, "policy keep_last: no option 'm'"),
    ],
)
def test_bad_options_are_told_at_decoration(option, problem):
    with pytest.raises(leyline.LeylineError, match=problem):
        leyline.wrap(**option)


def test_an_adapter_is_made_when_it_is_needed(monkeypatch, tmp_path):
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[leyline.adapters]\nlost = no_such_package.x:Lost\n")
    monkeypatch.syspath_prepend(tmp_path)
    run = leyline.wrap(adapter="lost")(lambda: None)
    with pytest.raises(leyline.AdapterError, match="'lost' cannot be imported .*no_such_package"):
        run()


def test_a_loop_whose_model_calls_are_not_seen_is_told_once(caplog, turns):
    run = leyline.wrap(lambda: None)
    with pytest.warns(leyline.LeylineWarning, match="<lambda> made no model call") as told:
        run()
    assert told[0].filename == __file__
    run()
    assert caplog.text.count("<lambda> made no model call") == 1
    nesting = leyline.wrap(lambda: leyline.wrap(around="loop")(turns)())
    nesting()
    assert "make made" not in caplog.text
    assert caplog.text.count("made no model call") == 1


def test_the_current_session_is_there_while_a_loop_runs(turns, model, outputs, stub):
    @leyline.wrap(policies=stub)
    def run():
        assert leyline.current_session() is None
        messages = turns(2)
        leyline.current_session().pin(3)
        turns(1, messages)

    run()
    assert leyline.current_session() is None
    assert outputs(model.requests[-1]) == ["output of c0", "output of c1"]


def test_a_retry_after_a_failed_first_call_keeps_its_session(model, task, stub):
    adapter = MockAdapter(model)
    adapter.fail(TimeoutError("slow"))

    @leyline.wrap(policies=stub, adapter=adapter)
    def run(create):
        with pytest.raises(TimeoutError):
            create(model="m", messages=task)
        create(model="m", messages=task)

    import openai

    run(openai.OpenAI(api_key="none").chat.completions.create)
    (session,) = run.leyline.sessions
    assert [c.version for c in adapter.commits] == [1, 1]
    assert session.version == 1
