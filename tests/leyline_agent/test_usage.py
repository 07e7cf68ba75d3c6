import pytest

from leyline_agent import Receipt, Session
from leyline_agent.usage import Usage, read

SAID = [
    # OpenAI, and whatever speaks its language: the cached tokens are a part of the prompt.
    ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, None, 4)),
    ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, Usage(9, 2)),
    ({"prompt_tokens": 9, "prompt_tokens_details": None}, Usage(9)),
    ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": None}}, Usage(9)),
    (
        {"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
        Usage(9, 2, 4),
    ),
    # Anthropic: three parts of one prompt.
    (
        {
            "input_tokens": 1,
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": 2,
            "output_tokens": 3,
        },
        Usage(9, 3, 6, 2),
    ),
    ({"input_tokens": 9, "output_tokens": 3}, Usage(9, 3)),
    ({"input_tokens": 9, "cache_read_input_tokens": 0}, Usage(9, None, 0)),
    # DeepSeek.
    (
        {"prompt_tokens": 9, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 1},
        Usage(9, None, 8),
    ),
    # litellm, of Anthropic.
    (
        {
            "prompt_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_creation_tokens": 2},
            "cache_read_input_tokens": 6,
            "cache_creation_input_tokens": 2,
        },
        Usage(9, None, 6, 2),
    ),
]


@pytest.mark.parametrize(("usage", "told"), SAID)
def test_what_providers_say(usage, told):
    assert read(usage) == told


@pytest.mark.parametrize(
    "usage", [None, {}, {"total_tokens": 3}, {"prompt_tokens": "9"}, {"input_tokens": True}]
)
def test_what_counts_no_prompt(usage):
    assert read(usage) is None


def test_silence_is_not_zero():
    silent = Receipt.from_usage({"prompt_tokens": 9})
    cold = Receipt.from_usage({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}})
    assert (silent.cache_read, cold.cache_read) == (None, 0)
    assert silent.prefilled == cold.prefilled == 9


@pytest.mark.parametrize("prompt", [3, 9])
def test_a_receipt_adds_up_though_the_figures_do_not(prompt):
    receipt = Receipt.from_usage(
        {"prompt_tokens": prompt, "prompt_tokens_details": {"cached_tokens": 5}}
    )
    assert receipt.reused_exact + receipt.prefilled == prompt
    assert receipt.cache_read == 5


def answered(**usage):
    return {"choices": [{"message": {"content": "Well."}}], "usage": usage}


def test_what_an_edit_cost_the_providers_cache():
    session, messages = Session(), []
    told = [
        {"input_tokens": 10, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 90},
        {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 40},
        {"input_tokens": 10, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 30},
        {"input_tokens": 100},
        {"input_tokens": 10, "cache_read_input_tokens": 90},
    ]
    for number, usage in enumerate(told):
        messages.append({"role": "user", "content": f"Question {number}."})
        session.begin(messages).fail("timeout")
        session.begin(messages).finish(answered(**usage))
        messages.append({"role": "assistant", "content": "Well."})
    found = [(receipt.cache_held, receipt.cache_lost) for receipt in session.receipts]
    assert found == [(None, None), (90, 0), (130, 80), (None, None), (None, None)]


def test_another_branch_has_its_own_cache():
    session = Session()
    first, other = ({"role": "user", "content": text} for text in ("One.", "Two."))
    session.begin([first]).finish(answered(prompt_tokens=9, prompt_cache_hit_tokens=8))
    receipt = session.begin([other]).finish(answered(prompt_tokens=9, prompt_cache_hit_tokens=0))
    assert receipt.cache_lost is None
