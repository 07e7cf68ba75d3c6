import httpx
import openai
import pytest

import leyline_agent as leyline
from leyline_agent import LeylineError, Reason
from leyline_agent.testing import DeterministicModel, MockAdapter


def converse(call, task, turns=4, tools=None):
    """A harness of its own around a model-call function; returns its messages."""
    messages = task
    for number in range(turns):
        reply = call(messages)
        message = reply["choices"][0]["message"] if isinstance(reply, dict) else reply
        if isinstance(message, str):
            message = {"role": "assistant", "content": message}
        messages = [*messages, dict(message), {"role": "user", "content": f"More {number}."}]
    return messages


@pytest.fixture
def shorten():
    @leyline.policy
    def shorten(trajectory):
        for index, message in enumerate(trajectory.messages[2:-1], start=2):
            if message["role"] == "user" and message["content"] != "...":
                yield leyline.Edit(index, index + 1, ({**message, "content": "..."},))

    return shorten


def users(request):
    return [m["content"] for m in request["messages"] if m["role"] == "user"][1:]


def test_a_function_with_messages_gets_the_view(task, shorten):
    seen = []

    @leyline.wrap(policies=shorten)
    def call(messages, temperature=1.0):
        """Calls the model."""
        seen.append({"messages": messages})
        return DeterministicModel("fine")(messages=messages)

    messages = converse(call, task)
    assert users(seen[-1]) == ["...", "...", "More 2."]
    assert users({"messages": messages}) == ["More 0.", "More 1.", "More 2.", "More 3."]
    (session,) = call.leyline.sessions
    assert session.version == 4
    assert (call.__name__, call.__doc__) == ("call", "Calls the model.")


@pytest.mark.parametrize(
    "reply",
    ["text", {"role": "assistant", "content": "text"}, DeterministicModel("text")(messages=[])],
)
def test_results_of_any_usual_shape_are_recorded(task, reply):
    call = leyline.wrap(lambda messages: reply)
    assert call(task) is reply
    assert call.leyline.sessions[0].history[-1] == {"role": "assistant", "content": "text"}


def test_results_of_another_shape_become_known_later(task):
    call = leyline.wrap(lambda messages: ("text", 3))
    assert call(task) == ("text", 3)
    answered = [*task, {"role": "assistant", "content": "text"}, task[1]]
    call(answered)
    assert call.leyline.sessions[0].history == answered


def test_other_conversations_are_told_apart(task, shorten):
    call = leyline.wrap(policies=shorten)(lambda messages: "fine")
    other = [task[0], {"role": "user", "content": "Another task."}]
    converse(call, task)
    converse(call, other)
    converse(call, task)
    first, second = call.leyline.sessions
    assert (first.version, second.version) == (8, 4)


def test_additions_of_the_adapter_reach_a_function_that_takes_them(task):
    got = []

    @leyline.wrap(adapter=MockAdapter())
    def call(messages, extra_body=None, tools=()):
        got.append((extra_body, tools))
        return "fine"

    call(task, {"top_k": 1}, tools=[{"type": "function"}])
    (body, tools) = got[0]
    assert (body["top_k"], body["leyline"]["version"], tools) == (1, 1, [{"type": "function"}])

    @leyline.wrap(adapter=MockAdapter())
    def keywords(messages, **options):
        got.append(options)
        return "fine"

    keywords(messages=task, seed=1)
    assert got[1]["seed"] == 1
    assert got[1]["extra_body"]["leyline"]["version"] == 1


def test_additions_that_reach_nobody_are_told_once(task, caplog):
    call = leyline.wrap(adapter=MockAdapter())(lambda messages: "fine")
    with pytest.warns(leyline.LeylineWarning, match="the engine is not told of edits"):
        converse(call, task, turns=1)
    converse(call, task, turns=1)
    assert caplog.text.count("takes no extra_body") == 1


def test_a_warning_that_is_an_error_gives_the_turn_up(task):
    call = leyline.wrap(adapter=MockAdapter())(lambda messages: "fine")
    with pytest.raises(leyline.LeylineWarning, match="is not told of edits"):
        call(task)
    (session,) = call.leyline.sessions
    assert (session.is_idle, session.version) == (True, 0)
    assert call(task) == "fine"
    assert session.version == 1


def test_a_failing_policy_is_an_error_where_warnings_are(task):
    @leyline.policy
    def broken(trajectory):
        raise ValueError("no idea")

    call = leyline.wrap(policies=broken)(lambda messages: "fine")
    with pytest.raises(leyline.LeylineWarning, match="no idea"):
        call(task)
    assert call(task) == "fine"
    (session,) = call.leyline.sessions
    assert (session.version, len(session.skipped)) == (1, 2)
    assert list(call.leyline.bypassed) == []


def test_a_library_call_inside_gets_the_additions(client, model, task, caplog):
    adapter = MockAdapter()

    class Plain:
        name, capabilities = "plain", adapter.capabilities
        prepare, receipt = adapter.prepare, adapter.receipt

    @leyline.wrap(adapter=Plain())
    def call(messages):
        made = client.chat.completions.create(model="m", messages=messages, extra_body={"top_k": 1})
        return made.choices[0].message.content

    assert call(task) == "I look."
    assert model.requests[0]["leyline"]["version"] == 1
    assert model.requests[0]["top_k"] == 1
    (session,) = call.leyline.sessions
    assert session.receipts[0].prompt > 0
    assert session.history[-1]["tool_calls"]
    assert caplog.text == ""


def test_a_library_call_inside_is_taken_over(client, task, shorten):
    adapter = MockAdapter(DeterministicModel("fine " * 30, repeat=True))

    @leyline.wrap(policies=shorten, adapter=adapter)
    def call(messages):
        return client.chat.completions.create(model="m", messages=messages)

    messages = task
    for number in range(3):
        made = call(messages)
        assert isinstance(made, openai.types.chat.ChatCompletion)
        more = {"role": "user", "content": f"More {number}."}
        messages = [*messages, made.choices[0].message, more]
    (session,) = call.leyline.sessions
    assert session.receipts[-1].reused_spliced > 0
    assert session.receipts[-1].reason is Reason.ASKED


def test_a_retry_inside_the_function_acts_once(client, task):
    adapter = MockAdapter(DeterministicModel("fine", repeat=True))
    adapter.fail(TimeoutError("slow"), answered=True)

    @leyline.wrap(adapter=adapter)
    def call(messages):
        try:
            return client.chat.completions.create(model="m", messages=messages)
        except TimeoutError:
            return client.chat.completions.create(model="m", messages=messages)

    call(task)
    assert call.leyline.sessions[0].receipts[0].reason is Reason.RETRY
    assert len(adapter.model.requests) == 1


def test_streams_of_the_library_inside(client, task):
    @leyline.wrap(adapter=MockAdapter(DeterministicModel("a b", "c d")))
    def call(messages):
        return client.chat.completions.create(model="m", messages=messages, stream=True)

    for chunk in call(task):
        if chunk.choices[0].finish_reason:
            break
    (session,) = call.leyline.sessions
    assert session.history[-1]["content"] == "a b"
    assert session.receipts[0].prompt > 0
    call(task).close()
    assert (session.version, session.stats().failed) == (1, 1)


def test_generators_of_text(task):
    @leyline.wrap
    def call(messages):
        yield "one "
        yield "two"

    assert list(call(task)) == ["one ", "two"]
    (session,) = call.leyline.sessions
    assert session.history[-1]["content"] == "one two"
    partly = call(task)
    assert next(partly) == "one "
    partly.close()
    assert session.stats().failed == 1


def test_a_generator_reads_a_stream_inside_its_scope(client, task):
    @leyline.wrap(adapter=MockAdapter(DeterministicModel("a b")))
    def call(messages):
        for chunk in client.chat.completions.create(model="m", messages=messages, stream=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    assert "".join(call(task)) == "a b"
    assert call.leyline.sessions[0].receipts[0].prompt > 0


async def test_async_functions_and_generators(async_client, model, task):
    @leyline.wrap
    async def call(messages):
        return await async_client.chat.completions.create(model="m", messages=messages)

    @leyline.wrap
    async def stream(messages):
        return await async_client.chat.completions.create(model="m", messages=messages, stream=True)

    @leyline.wrap
    async def texts(messages):
        yield "one "
        yield "two"

    assert (await call(task)).choices[0].message.content == "I look."
    assert [chunk async for chunk in await stream(task)]
    assert [text async for text in texts(task)] == ["one ", "two"]
    partly = texts(task)
    await anext(partly)
    await partly.aclose()
    for wrapped, failed in ((call, 0), (stream, 0), (texts, 1)):
        (session,) = wrapped.leyline.sessions
        assert (session.version, session.stats().failed) == (1, failed)


async def test_a_plain_function_that_gives_an_awaitable(async_client, task):
    call = leyline.wrap(
        lambda messages: async_client.chat.completions.create(model="m", messages=messages)
    )
    assert (await call(task)).choices[0].message.content == "I look."
    assert call.leyline.sessions[0].version == 1


def test_methods_of_every_kind(task):
    class Model:
        reply = "fine"

        @leyline.wrap
        def query(self, messages):
            return self.reply

        @leyline.wrap
        @classmethod
        def of_class(cls, messages):
            return cls.reply

        @leyline.wrap
        @staticmethod
        def of_none(messages):
            return "fine"

        @leyline.wrap(around="call")
        def first(self, prompt):
            return str(len(prompt))

    model = Model()
    assert [f(task) for f in (model.query, model.of_class, Model.of_none)] == ["fine"] * 3
    assert model.first(task) == "2"
    for wrapped in (Model.query, Model.of_class, Model.of_none, Model.first):
        assert wrapped.leyline.sessions[0].version == 1


def test_errors_pass_and_cost_only_the_turn(task):
    replies = iter([httpx.ConnectError("down"), "fine"])

    @leyline.wrap
    def call(messages):
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    with pytest.raises(httpx.ConnectError):
        call(task)
    assert call(task) == "fine"
    (session,) = call.leyline.sessions
    assert (session.version, session.stats().failed) == (1, 1)


@pytest.mark.parametrize("messages", ["a prompt", None, [3]])
def test_what_is_no_list_of_messages_goes_through(messages):
    call = leyline.wrap(lambda messages=None: "fine")
    with pytest.warns(leyline.LeylineWarning, match="goes out unedited: TrajectoryError"):
        assert call(messages) == "fine"
    assert call(messages) == "fine"
    assert len(call.leyline.bypassed) == 2


def test_faults_of_ours_do_not_cost_the_call(task, tmp_path, caplog):
    (tmp_path / "full").write_text("")

    class Broken(MockAdapter):
        def prepare(self, request, commit):
            raise RuntimeError("a fault")

    call = leyline.wrap(adapter=Broken())(lambda messages: "fine")
    with pytest.warns(leyline.LeylineWarning, match="goes out unedited: RuntimeError: a fault"):
        assert call(task) == "fine"
    assert call.leyline.bypassed[0] == "RuntimeError: a fault"

    class Unreadable(MockAdapter):
        def receipt(self, response):
            raise RuntimeError("a fault")

    kept = leyline.wrap(adapter=Unreadable())(
        lambda messages, extra_body: DeterministicModel("ok")(messages=task)
    )
    assert kept(task, {}).choices[0].message.content == "ok"
    assert "was answered but not kept" in caplog.text


def test_journals_go_into_a_folder(task, tmp_path):
    call = leyline.wrap(journal=tmp_path / "runs")(lambda messages: "fine")
    converse(call, task)
    (file,) = (tmp_path / "runs").iterdir()
    assert file.stem == call.leyline.sessions[0].id
    assert leyline.Session.resume(file).version == 4


@pytest.mark.parametrize(
    ("wrapping", "problem"),
    [
        (lambda path: leyline.wrap(3), "cannot wrap 3"),
        (lambda path: leyline.wrap(dict), "wrap a function or a method"),
        (lambda path: leyline.wrap(policies="no_such_policy"), "no policy named"),
        (lambda path: leyline.wrap(mode_floor="forgive"), "the modes are amortize, repair"),
        (lambda path: leyline.wrap(around="call")(lambda: 0), "no parameter that could take"),
        (lambda path: leyline.wrap(journal=path), "is a file; name a folder"),
    ],
)
def test_mistakes_are_told_where_they_are_made(tmp_path, wrapping, problem):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(LeylineError, match=problem):
        wrapping(path)


def test_what_to_wrap_is_checked():
    with pytest.raises(LeylineError, match="around='lop': it is 'loop', 'call' or 'auto'"):
        leyline.wrap(around="lop")(lambda messages: "text")
