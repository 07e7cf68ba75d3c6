import pytest

from leyline_agent.testing import DeterministicModel, tool_call
from leyline_agent.wrapping.scope import stepped
from leyline_agent.wrapping.streams import Assembly, Stream, tee

ASK = [{"role": "user", "content": "Hello."}]


class Waiting:
    def __init__(self):
        self.heard = []

    def answered(self, response):
        self.heard.append(response)

    def failed(self, error):
        if not self.heard:
            self.heard.append(error)


def assembled(chunks):
    assembly = Assembly()
    for chunk in chunks:
        assembly.add(chunk)
    return assembly.response()


@pytest.mark.parametrize(
    "reply",
    ["some words", "", tool_call("f", id="a", x=1), tool_call("g", id="b", content="I do.")],
)
def test_chunks_are_put_together_to_what_was_streamed(reply):
    whole = DeterministicModel(reply)(messages=ASK)
    made = assembled(DeterministicModel(reply)(messages=ASK, stream=True))
    assert made["choices"] == whole["choices"]
    assert made["usage"] == whole["usage"]


def test_parallel_calls_arrive_in_pieces():
    def delta(*calls):
        return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}}]}

    made = assembled(
        [
            delta({"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x"'}}),
            delta({"index": 1, "id": "b", "function": {"name": "g", "arguments": ""}}),
            delta({"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1, "function": {}}),
        ]
    )
    calls = made["choices"][0]["message"]["tool_calls"]
    assert [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in calls] == [
        ("a", "f", '{"x": 1}'), ("b", "g", ""),
    ]  # fmt: skip


def test_what_is_no_completion_gives_none():
    assert assembled([{"type": "ping"}, 3, None]) is None
    assert assembled(["a", "b"])["choices"][0]["message"]["content"] == "ab"


def read(chunks):
    waiting = Waiting()
    return waiting, tee(stepped(iter(chunks), None), waiting)


def model_chunks():
    return list(DeterministicModel("one two")(messages=ASK, stream=True))


def test_the_end_is_known_before_the_last_words_are_handed_on():
    waiting, chunks = read(model_chunks())
    for chunk in chunks:
        if chunk.choices and chunk.choices[0].finish_reason:
            break
    assert waiting.heard[0]["usage"]["prompt_tokens"] > 0
    assert len(waiting.heard) == 1


def test_a_stream_without_a_finish_reason_ends_with_its_chunks():
    chunks = model_chunks()[:2]
    waiting, passed = read(chunks)
    assert list(passed) == chunks
    assert waiting.heard[0]["choices"][0]["message"]["content"] == "one "


def test_an_error_on_the_way_passes_and_fails():
    def broken():
        yield model_chunks()[1]
        raise OSError("reset")

    waiting, chunks = read(broken())
    next(chunks)
    with pytest.raises(OSError, match="reset"):
        next(chunks)
    assert isinstance(waiting.heard[0], OSError)


def test_an_error_behind_the_last_words_costs_neither_them_nor_the_turn():
    def broken():
        yield from model_chunks()[:-1]
        raise OSError("reset")

    waiting, chunks = read(broken())
    got = []
    with pytest.raises(OSError, match="reset"):
        got.extend(iter(lambda: next(chunks), None))
    assert waiting.heard[0]["choices"][0]["message"]["content"] == "one two"
    assert got[-1].choices[0].finish_reason == "stop"


def test_closing_closes_the_source_and_fails():
    closed = []

    def source():
        try:
            yield from model_chunks()
        finally:
            closed.append(True)

    waiting, chunks = read(source())
    next(chunks)
    chunks.close()
    assert (waiting.heard, closed) == (["abandoned"], [True])


def test_a_standing_stream_shows_what_it_stands_for():
    class Native:
        status = 200

        def __init__(self):
            self.closed = False

        def __iter__(self):
            return iter("ab")

        def close(self):
            self.closed = True

    native, waiting = Native(), Waiting()
    stream = Stream(native, tee(stepped(iter(native), None), waiting), waiting)
    assert isinstance(stream, Native)
    assert stream.status == 200
    with stream as entered:
        assert list(entered) == ["a", "b"]
    assert native.closed
    with pytest.raises(AttributeError):
        _ = stream.nothing
