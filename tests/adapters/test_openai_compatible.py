import pytest

from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent import Adapter, AdapterError, Session
from leyline_agent.adapter import as_adapter

ASK = [{"role": "user", "content": "Hello."}]


def test_it_adds_nothing_to_the_request():
    turn = Session(adapter="openai").begin(ASK, model="m", temperature=0)
    assert turn.request == {"model": "m", "temperature": 0, "messages": ASK}


def test_the_receipt_is_what_the_usage_says():
    receipt = OpenAICompatibleAdapter().receipt(
        {"usage": {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 48}}}
    )
    assert (receipt.prompt, receipt.reused_exact, receipt.prefilled) == (50, 48, 2)


@pytest.mark.parametrize("response", [{}, {"usage": None}, {"usage": {"total_tokens": 3}}])
def test_no_usage_gives_no_receipt(response):
    assert OpenAICompatibleAdapter().receipt(response) is None


class Partial:
    name = "partial"

    def prepare(self, request, commit):
        return request


def test_it_is_the_default_and_found_by_name():
    assert isinstance(as_adapter(None), OpenAICompatibleAdapter)
    assert isinstance(as_adapter("openai"), Adapter)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("opneai", "no adapter named 'opneai'; installed:"),
        (7, "7 is no adapter; pass"),
        (Partial(), "Partial is no adapter: it has no capabilities, receipt "),
    ],
)
def test_other_values_are_refused(value, problem):
    with pytest.raises(AdapterError, match=problem):
        as_adapter(value)
