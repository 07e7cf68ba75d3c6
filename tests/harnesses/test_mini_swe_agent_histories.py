"""Histories that a harness changes, shortens, forks or repeats on its way to a managed model."""

import copy

import pytest
from mini_swe_runs import bash, contents, managed, pairs
from model_server import serving

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("MSWEA_COST_TRACKING", "ignore_errors")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)


class Conversation:
    """A harness of few scruples: it sends what it likes to a managed model."""

    def __init__(self, url):
        self.model = managed(url)
        self.messages = [
            {"role": "system", "content": "You fix bugs."},
            {"role": "user", "content": "Task: count"},
        ]

    def turn(self, output="line\n" * 100):
        message = self.model.query(self.messages)
        call = message["tool_calls"][0]["id"]
        result = {"role": "tool", "tool_call_id": call, "content": output}
        self.messages += [message, result]

    @property
    def session(self):
        (session,) = self.model.leyline.sessions
        return session


@pytest.fixture
def talk():
    script = DeterministicModel(lambda messages: bash(f"ls {len(messages)}"), repeat=True)
    with serving(script) as url:
        conversation = Conversation(url)
        for _ in range(4):
            conversation.turn()
        yield conversation, script
    assert not conversation.model.leyline.bypassed
    assert all(pairs(request["messages"]) for request in script.requests[:-1])


def stubs(request):
    return [len(content) < 100 for content in contents(request["messages"])]


def test_a_history_that_was_rewritten_is_followed(talk):
    conversation, script = talk
    conversation.messages[3] = {**conversation.messages[3], "content": "rewritten " * 50}
    conversation.turn()
    assert stubs(script.requests[-1]) == [True, True, True, False]
    assert contents(script.requests[-1]["messages"])[0].startswith("rewritten")
    assert pairs(script.requests[-1]["messages"])
    assert conversation.session.history[3]["content"] == "rewritten " * 50


def test_a_history_that_lost_messages_is_followed(talk):
    conversation, script = talk
    del conversation.messages[2:6]
    conversation.turn()
    assert stubs(script.requests[-1]) == [True, False]
    assert pairs(script.requests[-1]["messages"])


def test_our_own_view_coming_back_is_no_rewrite(talk):
    conversation, script = talk
    conversation.messages = [*script.requests[-1]["messages"], *conversation.messages[-2:]]
    conversation.turn()
    assert conversation.session.version == 5
    assert len(contents(conversation.session.history)[0]) == 500


def test_two_futures_of_one_past_do_not_mix(talk):
    conversation, script = talk
    past = list(conversation.messages)
    conversation.turn("one future " * 40)
    one = conversation.messages
    conversation.messages = past
    conversation.turn("another future " * 40)
    conversation.turn()
    conversation.messages = one
    conversation.turn()
    assert "another" not in str(script.requests[-1]["messages"])
    assert contents(script.requests[-1]["messages"])[-1].startswith("one future")
    assert pairs(script.requests[-1]["messages"])


def test_the_same_call_again_sends_the_same(talk):
    conversation, script = talk
    before = copy.deepcopy(conversation.messages)
    for _ in range(3):
        conversation.model.query(conversation.messages)
    assert script.requests[-1] == script.requests[-2] == script.requests[-3]
    assert conversation.messages == before


def test_a_call_without_its_result_goes_out_as_it_is(talk):
    conversation, script = talk
    cut = conversation.messages[:-1]
    conversation.model.query(cut)
    assert not pairs(script.requests[-1]["messages"])
    assert stubs(script.requests[-1]) == [True, True, False]
    assert any(
        "no result" in str(odd) or "unanswered" in str(odd) for odd in conversation.session.oddities
    )


def test_images_go_through(talk):
    conversation, script = talk
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    conversation.messages.append({"role": "user", "content": [image]})
    conversation.turn()
    assert script.requests[-1]["messages"][-1]["content"] == [image]


@pytest.mark.filterwarnings("ignore:There is no current event loop")  # litellm's own
def test_what_is_no_message_goes_out_unedited_and_is_told():
    script = DeterministicModel(bash("ls"))
    with serving(script) as url:
        model = managed(url)
        with pytest.warns(leyline.LeylineWarning, match="goes out unedited"):
            model.query([{"role": "user", "content": "hello"}, {"content": "no role"}])
    assert len(model.leyline.bypassed) == 1
