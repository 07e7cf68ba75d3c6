"""A response as the harness gets it, of dictionaries and of the libraries' objects."""

import pytest
from litellm import ModelResponse
from openai.types.chat import ChatCompletion
from recalling import TASK, recalls, runs

from leyline_agent.message import copy
from leyline_agent.recall.delivery import delivered
from leyline_agent.recall.tool import with_notice
from leyline_agent.response import as_dict, reply, usage
from leyline_agent.testing import DeterministicModel

# litellm's own models warn; what they warn of is not ours.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

KINDS = [copy, DeterministicModel, ChatCompletion, ModelResponse]
SPENT = {
    "prompt_tokens": 100,
    "completion_tokens": 10,
    "total_tokens": 110,
    "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": None},
    "note": "no number",
}


def made(kind, told):
    """A response of a kind: a dictionary, the test kit's, openai's, litellm's."""
    answer = DeterministicModel(told).create(messages=TASK)
    if kind in (copy, DeterministicModel):
        return kind(answer) if kind is copy else answer
    return kind(**copy(answer))


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_recall_is_the_response_itself(kind):
    response = made(kind, runs())
    before = copy(as_dict(response))
    assert delivered(response, []) is response
    assert as_dict(response) == before


@pytest.mark.parametrize("kind", KINDS)
def test_recalls_are_taken_out(kind):
    told = delivered(made(kind, recalls("r1", beside=["ls"])([])), [])
    (call,) = reply(told)["tool_calls"]
    assert call["function"]["name"] == "bash"
    assert as_dict(told)["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("content", ["", "I look."])
def test_a_reply_of_recalls_alone_is_a_text(kind, content):
    told = delivered(made(kind, recalls("r1", content=content)([])), [])
    assert not reply(told).get("tool_calls")
    assert reply(told)["content"] == with_notice(content)
    assert as_dict(told)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("kind", KINDS)
def test_the_usage_is_the_sum(kind):
    response = made(kind, "done")
    before = copy(usage(response))
    after = usage(delivered(response, [SPENT, SPENT]))
    for key in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert after[key] == before[key] + 2 * SPENT[key]
    cached = before["prompt_tokens_details"]["cached_tokens"]
    assert after["prompt_tokens_details"]["cached_tokens"] == cached + 14


def test_a_dictionary_is_copied():
    response = made(DeterministicModel, recalls("r1")([]))
    before = copy(response)
    told = delivered(response, [SPENT])
    assert response == before
    assert told.choices[0].message.content
    assert told.usage.prompt_tokens > 100


@pytest.mark.parametrize("response", ["text", None, 3, {"role": "assistant", "content": "x"}])
def test_what_is_no_completion_stays(response):
    assert delivered(response, [SPENT]) is response


def test_a_message_is_cleaned_too():
    assert delivered(recalls("r1")([]), []) == {
        "role": "assistant", "content": with_notice("Let me see that again."),
    }  # fmt: skip
