"""What a held stream passes on, and when."""

import pytest
from recalling import TASK, TOOLS, recalls, runs

import leyline_agent as leyline
from leyline_agent.recall.delivery import Delivery
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.testing.model import chunks
from leyline_agent.wrapping.held import held
from leyline_agent.wrapping.streams import Assembly


class Exchange:
    """Hides replies until it does not."""

    def __init__(self, *hidden):
        self.hidden = list(hidden)
        self.told = []

    def advance(self, response):
        self.told.append(response)
        return self.hidden.pop(0) if self.hidden else False


def deaf(stream, note):
    pass


def streams(*replies):
    """A stream of chunks for each reply, and a list that notes each chunk that is read."""
    read = []

    def made(reply):
        for chunk in chunks(DeterministicModel(reply).create(messages=TASK)):
            read.append(chunk)
            yield chunk

    return [made(reply) for reply in replies], read


def run(exchange, *replies):
    (first, *others), read = streams(*replies)
    return held(first, lambda: others.pop(0), exchange, deaf, Assembly()), read


def reply(*wanted, **given):
    return recalls(*wanted, **given)([])


def test_another_tool_passes_at_its_name():
    passed, read = run(Exchange(), runs("make"))
    next(passed)
    assert read[-1]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "bash"
    assert len([*passed]) == len(read) - 1


def test_a_text_passes_at_its_end():
    passed, read = run(Exchange(), "one two three")
    next(passed)
    assert read[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_recall_is_replaced_by_the_next_stream():
    exchange = Exchange(True, True)
    passed, read = run(exchange, reply("r1"), reply("r2"), "done")
    whole = Assembly()
    for chunk in passed:
        whole.add(chunk)
    assert whole.response()["choices"][0]["message"]["content"] == "done"
    assert [t["usage"]["prompt_tokens"] > 0 for t in exchange.told] == [True, True]
    assert len(read) > 10


def test_a_recall_that_is_not_hidden_passes_whole():
    passed, read = run(Exchange(False), reply("r1", beside=["ls"]))
    assert [*passed] == read


def test_several_replies_pass_at_once():
    chunk = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    passed = held(iter([chunk, chunk]), list, Exchange(), deaf, Assembly())
    assert next(passed) is chunk


@pytest.mark.parametrize("hidden", [False, True])
def test_a_stream_that_breaks_off(hidden):
    def broken():
        (first, *_), _ = streams(reply("r1") if hidden else "one two three")
        for number, chunk in enumerate(first):
            if number == 8 or (not hidden and number == 3):
                raise ConnectionError("broken")
            yield chunk

    passed = held(broken(), list, Exchange(), deaf, Assembly())
    got = []

    def read():
        for chunk in passed:
            got.append(chunk)

    with pytest.raises(ConnectionError):
        read()
    assert len(got) == (0 if hidden else 3)


def test_what_is_abandoned_is_closed():
    closed = []

    def second():
        try:
            yield from chunks(DeterministicModel(runs()).create(messages=TASK))
        finally:
            closed.append(True)

    (first, *_), _ = streams(reply("r1"))
    passed = held(first, second, Exchange(True), deaf, Assembly())
    next(passed)
    passed.close()
    assert closed == [True]


def delivered(told, usages=()):
    """A reply's chunks as the harness gets them, put together."""
    clean, whole = Delivery(list(usages)), Assembly()
    for chunk in chunks(DeterministicModel(told).create(messages=TASK)):
        whole.add(clean(chunk))
    return whole.response()


def test_calls_beside_a_recall_move_up():
    choice = delivered(reply("r1", beside=["one", "two"]))["choices"][0]
    commands = [call["function"]["arguments"] for call in choice["message"]["tool_calls"]]
    assert commands == ['{"command": "one"}', '{"command": "two"}']
    assert choice["finish_reason"] == "tool_calls"


def test_a_reply_that_only_recalls_ends_without_calls():
    choice = delivered(reply("r1"))["choices"][0]
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


def test_the_usage_of_a_stream_is_that_of_all_calls():
    spent = {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 7}}
    plain, summed = delivered("done")["usage"], delivered("done", [spent, spent])["usage"]
    assert summed["prompt_tokens"] == plain["prompt_tokens"] + 200
    cached = plain["prompt_tokens_details"]["cached_tokens"]
    assert summed["prompt_tokens_details"]["cached_tokens"] == cached + 14
    assert summed["completion_tokens"] == plain["completion_tokens"]


def test_a_stream_that_may_not_call_tools_is_not_held():
    adapter = MockAdapter(DeterministicModel("one two three"))
    session = leyline.Session(adapter=adapter, recall=True)
    assert session.begin(TASK, tools=TOOLS).may_advance
    assert not session.begin(TASK, tools=TOOLS, tool_choice="none").may_advance
    assert not session.begin(TASK).may_advance
    assert not leyline.Session(adapter=adapter).begin(TASK, tools=TOOLS).may_advance
