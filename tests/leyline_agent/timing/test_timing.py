"""What users write for `timing`, and the prices it means."""

import pytest

from leyline_agent import LeylineError, Session
from leyline_agent.timing.costs import ANTHROPIC, OPENAI, Prices
from leyline_agent.timing.timing import Timing, as_timing


@pytest.mark.parametrize("value", [None, "now"])
def test_now_is_no_timing(value):
    assert as_timing(value) is None


def test_text_and_objects_make_the_same():
    assert as_timing("auto") == Timing()
    given = "auto:pays_within=20, prices=anthropic,context=100000"
    assert as_timing(given) == Timing(pays_within=20, prices=ANTHROPIC, context=100_000)
    mine = Timing(prices=Prices(read=0.5))
    assert as_timing(mine) is mine


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("later", "timing 'later': it is 'now', 'auto', 'auto:key=value' or a Timing"),
        (3, "timing 3"),
        ("auto:pay_within=2", "no option 'pay_within'; did you mean 'pays_within'"),
        ("auto:pays_within=0", "^timing: pays_within must be a whole number, at least 1, not '0'"),
        ("auto:prices=mine", "no prices are named 'mine'; there are anthropic, openai"),
        ("auto:pays_within", "'pays_within' is not key=value"),
    ],
)
def test_what_is_no_timing_is_told(value, told):
    with pytest.raises(LeylineError, match=told):
        Session(timing=value)


@pytest.mark.parametrize(
    ("names", "prices"),
    [
        (("openai", "gpt-5"), OPENAI),
        (("anthropic", ""), ANTHROPIC),
        (("openai", "openrouter/anthropic/claude-sonnet-4.5"), ANTHROPIC),
        (("litellm", "Claude-opus"), ANTHROPIC),
    ],
)
def test_prices_are_told_by_names(names, prices):
    assert Timing().prices_of(*names) == prices
    assert Timing(prices=Prices(read=0.5)).prices_of(*names) == Prices(read=0.5)


@pytest.mark.parametrize("wrong", [{"read": -0.1}, {"write": 0}, {"ttl": 0}])
def test_prices_below_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        Prices(**wrong)


def test_a_timing_is_told_as_it_is_written():
    given = "auto:prices=anthropic,pays_within=20"
    assert as_timing(str(as_timing(given))) == as_timing(given)
    assert str(Timing()) == "auto"
    assert str(Timing(prices=Prices(read=0.5))).startswith("auto:prices=Prices(read=0.5")
