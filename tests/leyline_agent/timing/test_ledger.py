"""What a session remembers of its last call: when a provider's cache is cold."""

import pytest

from leyline_agent.receipt import EditReceipt, Receipt
from leyline_agent.timing.ledger import Ledger
from leyline_agent.timing.moment import Moment, When


def receipt(prompt, reused=0, edits=0, tells=True):
    return Receipt(
        prompt=prompt,
        cache_read=reused if tells else None,
        reused_exact=reused,
        prefilled=prompt - reused,
        appended=prompt,
        edits=(EditReceipt(),) * edits,
    )


def moment(when, held):
    return Moment(when=when, held=held, reason="r")


def told(*calls, start=1000.0, step=10.0):
    """A ledger after calls, each a receipt or a pair of moments and a receipt."""
    ledger = Ledger()
    for number, call in enumerate(calls):
        moments, given = call if isinstance(call, tuple) else ((), call)
        ledger.committed(moments, given, start + number * step)
    return ledger


def test_a_cache_is_warm_until_its_time_is_over():
    ledger = told(receipt(5000))
    assert ledger.cold(1000.0 + 300, 300) == ""
    assert ledger.cold(1000.0 + 301, 300) == "the last call was 301 s ago, and it keeps 300 s"


def test_before_the_first_call_nothing_is_known_of_it():
    assert Ledger().cold(1e9, 300) == ""


def test_a_miss_where_a_hit_was_due_is_a_cold_cache():
    ledger = told(receipt(5000), receipt(5200, reused=0))
    assert ledger.cold(1011, 300) == "the last call found nothing of the 5,000 tokens sent before"
    assert told(receipt(5000), receipt(5200, reused=4992)).cold(1011, 300) == ""


@pytest.mark.parametrize(
    "calls",
    [
        [receipt(900), receipt(5200)],  # too short to be kept
        [receipt(5000), receipt(5200, edits=1)],  # an edit broke it
        [receipt(5000), receipt(2000)],  # another conversation
        [receipt(0), receipt(5000)],  # nothing was counted
        [receipt(5000), receipt(5200, tells=False)],  # nothing is told of the cache
    ],
)
def test_no_hit_is_no_miss_where_none_was_due(calls):
    assert told(*calls).cold(1011, 300) == ""


def test_a_miss_after_a_long_pause_says_nothing_of_the_next_call():
    ledger = told(receipt(5000), receipt(5200), step=400)
    assert ledger.cold(1401, 300) == ""


def test_edits_held_for_a_tool_are_missed_until_they_are_made_while_one_runs():
    held = ((moment(When.TOOL, True),), receipt(5000))
    assert told(held).tool_missed
    made = ((moment(When.TOOL, False),), receipt(5000))
    assert not told(held, made).tool_missed
    some = ((moment(When.TOOL, False), moment(When.WAIT, True)), receipt(5000))
    assert told(held, some).tool_missed
    assert not told(held, ((moment(When.NOW, False),), receipt(5000))).tool_missed


def test_edits_ahead_are_no_call():
    made = ((moment(When.TOOL, False),), receipt(4000))
    ledger = told(receipt(5000), made)
    assert (ledger.answered, ledger.prompt) == (1000.0, 5000)
