"""The cost of edits against a prefix cache that is counted token by token."""

from itertools import count, takewhile

from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.timing.costs import Costs, Prices
from leyline_agent.timing.decision import Situation, decide
from leyline_agent.timing.moment import EditPlace
from leyline_agent.timing.pending import Pending


def charged(prices, tokens, cached):
    """What a provider charges for a prompt when it holds the tokens `cached`."""
    hit = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(tokens, cached, strict=False))))
    return prices.read * hit + prices.write * (len(tokens) - hit)


@st.composite
def conversations(draw):
    """Tokens, what of them was sent before, and pending edits with the tokens they leave."""
    ids = count()
    old, stops, edits = [], [0], []
    for start in range(draw(st.integers(1, 5))):
        old += [next(ids) for _ in range(draw(st.integers(0, 30)))]
        stops.append(len(old))
        at, removed = len(old), draw(st.integers(2, 30))
        old += [next(ids) for _ in range(removed)]
        stops.append(len(old))
        edits.append((start, at, removed, draw(st.integers(0, removed - 1))))
    old += [next(ids) for _ in range(draw(st.integers(0, 30)))]
    known = draw(st.sampled_from(stops))
    pending = [
        Pending(
            (EditPlace(start=start, end=start + 1),), at, removed,
            min(max(known - at, 0), removed), inserted,
        )
        for start, at, removed, inserted in edits
    ]  # fmt: skip
    return old, known, pending


def edited(old, pending):
    """The tokens after edits."""
    new, cursor = [], 0
    for one in pending:
        new += old[cursor : one.at]
        new += [-1 - one.at * 100 - i for i in range(one.inserted)]
        cursor = one.at + one.removed
    return new + old[cursor:]


prices = st.builds(Prices, read=st.sampled_from([0.1, 0.25, 0.5]), write=st.sampled_from([1, 1.25]))


@given(conversations(), prices, st.integers(1, 40))
def test_what_a_moment_says_is_what_a_provider_charges(conversation, prices, pays_within):
    old, known, pending = conversation
    situation = Situation(known=known, tokens=len(old))
    moments = decide(pending, situation, Costs(prices=prices), pays_within)
    taken = {place for moment in moments if not moment.held for place in moment.edits}
    now = [one for one in pending if one.edits[0] in taken]
    before = charged(prices, old, old[:known])
    after = charged(prices, edited(old, now), old[:known])
    (said,) = [m.cost for m in moments if not m.held and m.cost] or [None]
    if said is not None:
        assert abs((after - before) - said) <= 0.5

    # No other set of edits from one place to the end would do better.
    def gain(edits):
        new = edited(old, edits)
        a_call = prices.read * (len(old) - len(new))
        return a_call * pays_within - (charged(prices, new, old[:known]) - before)

    if known:
        best = max(gain(pending[first:]) for first in range(len(pending) + 1))
        assert gain(now) >= best - 1e-6
