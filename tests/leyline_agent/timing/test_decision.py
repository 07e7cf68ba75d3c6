"""Whatever is pending and whatever it costs: each edit has one moment, and the numbers say why."""

from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.timing.costs import ANTHROPIC, Costs, Prices
from leyline_agent.timing.decision import Situation, at_once, decide
from leyline_agent.timing.moment import EditPlace, When
from leyline_agent.timing.pending import Pending

PROVIDER = Costs(prices=ANTHROPIC)
ENGINE = Costs(splices=True, edits_ahead=True, tokens_per_s=2000)


def edit(start, at, removed=1000, inserted=20, **known):
    place = EditPlace(start=start, end=start + 1, policy="p")
    return Pending((place,), at, removed, known.pop("seen", removed), inserted, **known)


def chosen(pending, costs=PROVIDER, pays_within=12, **situation):
    situation = {"known": 20_000, "tokens": 21_000, "calls_tools": True, **situation}
    return decide(pending, Situation(**situation), costs, pays_within)


def test_an_edit_far_from_the_end_waits_where_a_cache_breaks():
    (moment,) = chosen([edit(2, at=1000)])
    assert (moment.when, moment.held) == (When.WAIT, True)
    # 18,000 tokens behind it at 1.25 instead of 0.1, 20 written, and 1,000 no longer read.
    assert moment.cost == round(18_000 * 1.15 + 20 * 1.25 - 1000 * 0.1)
    assert moment.saves == 980
    assert moment.calls == round(moment.cost / 98, 1)
    assert moment.reason == (
        "costs 20,625 uncached tokens, saves 980 a call: pays after 210.5 calls, not within 12"
    )


def test_an_edit_near_the_end_pays_at_once():
    (moment,) = chosen([edit(2, at=18_500)])
    assert (moment.when, moment.held) == (When.NOW, False)
    assert moment.calls <= 12


def test_of_several_edits_those_behind_which_little_stands_are_made():
    now, wait = chosen([edit(2, at=1000), edit(9, at=18_500), edit(11, at=19_500, removed=400)])
    assert (now.when, [e.start for e in now.edits]) == (When.NOW, [9, 11])
    assert (wait.when, [e.start for e in wait.edits]) == (When.WAIT, [2])


def test_many_edits_together_pay_for_what_one_does_not():
    far = [edit(start, at=1000 * start) for start in range(1, 19)]
    assert [m.when for m in chosen(far[:1])] == [When.WAIT]
    (moment,) = chosen(far)
    assert (moment.when, len(moment.edits)) == (When.NOW, 18)


def test_what_must_be_made_takes_along_what_stands_behind_it():
    must = edit(4, at=3000, must="what is to be forgotten is never held")
    now, behind = chosen([must, edit(9, at=9000)])
    assert (now.when, now.reason) == (When.NOW, must.must)
    assert (behind.when, behind.reason) == (
        When.NOW,
        "what stands behind them is computed in any case",
    )
    now, before = chosen([edit(2, at=1000), edit(4, at=19_000, must="declared")])
    assert (before.when, before.edits[0].start) == (When.WAIT, 2)


def test_what_goes_with_an_edit_that_must_be_made_costs_only_what_is_in_front_of_it():
    must = edit(4, at=3000, must="declared")
    _, before = chosen([edit(2, at=1500), must])
    assert before.when is When.NOW
    assert before.cost == round(500 * 1.15 + 20 * 1.25 - 100)


def test_a_cold_cache_and_a_full_context_wait_for_nothing():
    (moment,) = chosen([edit(2, at=1000)], cold="the last call was 400 s ago, and it keeps 300 s")
    assert (moment.when, moment.held) == (When.NOW, False)
    assert moment.reason.startswith("the cache is cold: the last call was 400 s ago")
    (moment,) = chosen([edit(2, at=1000)], context=20_500)
    assert moment.reason == "21,000 tokens do not fit the 20,500 of a call"
    (moment,) = chosen([edit(2, at=1000)], context=21_000)
    assert moment.held


def test_an_engine_that_splices_makes_at_once_what_computes_nothing():
    (moment,) = chosen([edit(2, at=1000)], ENGINE)
    assert (moment.when, moment.held) == (When.NOW, False)
    assert moment.reason == "the engine keeps what stands behind them"


def test_a_repair_waits_for_the_next_tool():
    (moment,) = chosen([edit(2, at=1000, repairs=1)], ENGINE)
    assert (moment.when, moment.held, moment.cost) == (When.TOOL, True, 64)
    assert (
        moment.reason == "repairs compute about 64 tokens (32 ms); the next tool's time hides that"
    )
    (moment,) = chosen([edit(2, at=1000, repairs=1)], ENGINE, tool_runs=True)
    assert (moment.when, moment.held) == (When.TOOL, False)


def test_a_repair_waits_for_no_tool_that_does_not_come():
    pending = [edit(2, at=1000, repairs=1)]
    (moment,) = chosen(pending, ENGINE, tool_missed=True)
    assert moment.when is When.NOW
    assert moment.reason.endswith("they have waited for a tool before")
    (moment,) = chosen(pending, ENGINE, calls_tools=False)
    assert (moment.when, moment.held) == (When.NOW, False)
    (moment,) = chosen(pending, Costs(splices=True))
    assert moment.reason.endswith("this engine cannot edit ahead")


def test_repairs_leave_a_busy_engine_to_others_and_amortised_edits_need_not():
    busy = Costs(splices=True, edits_ahead=True, queue=2)
    free, repaired = chosen([edit(2, at=1000, repairs=1), edit(9, at=9000)], busy, tool_runs=True)
    assert (free.when, free.edits[0].start) == (When.TOOL, 9)
    assert (repaired.when, repaired.held) == (When.WAIT, True)
    assert repaired.reason.endswith("and 2 other requests are at the engine")


def test_a_cheaper_write_and_a_dearer_read_bring_an_edit_forward():
    pending = [edit(2, at=15_000)]
    (dear,) = chosen(pending, PROVIDER)
    (cheap,) = chosen(pending, Costs(prices=Prices(read=0.5, write=1.0)))
    assert (dear.when, cheap.when) == (When.WAIT, When.NOW)


def test_edits_at_once_are_one_moment():
    pending = [edit(2, at=1000), edit(9, at=9000)]
    (moment,) = at_once(pending, "because", tool_runs=True)
    assert (moment.when, moment.held, len(moment.edits)) == (When.TOOL, False, 2)
    assert str(moment) == "2 edits while the tool runs: because"


tokens = st.integers(0, 50_000)


@st.composite
def pendings(draw):
    """Edits by place, with whatever sizes."""
    found, at = [], draw(tokens)
    for start in range(draw(st.integers(1, 6))):
        removed = draw(tokens)
        must = draw(st.sampled_from(["", "", "what is to be forgotten is never held"]))
        inserted = draw(st.integers(0, removed)) if not must else draw(tokens)
        seen = draw(st.integers(0, removed))
        repairs = draw(st.integers(0, 1))
        found.append(edit(start, at, removed, inserted, seen=seen, repairs=repairs, must=must))
        at += removed + draw(tokens)
    return found


situations = st.builds(
    Situation,
    known=tokens,
    tokens=tokens,
    tool_runs=st.booleans(),
    calls_tools=st.booleans(),
    tool_missed=st.booleans(),
    cold=st.sampled_from(["", "", "it is"]),
    context=st.none() | tokens,
)
prices = st.builds(Prices, read=st.floats(0, 2), write=st.floats(0.1, 4), ttl=st.floats(1, 1000))
costs = st.builds(
    Costs,
    prices=prices,
    splices=st.booleans(),
    edits_ahead=st.booleans(),
    repaired=st.floats(0, 1000),
    tokens_per_s=st.none() | st.floats(1, 1e5),
    queue=st.integers(0, 3),
)


@given(pendings(), situations, costs, st.integers(1, 100))
def test_every_edit_has_one_moment_and_what_must_be_made_is_made(pending, situation, cost, pays):
    moments = decide(pending, situation, cost, pays)
    told = [place for moment in moments for place in moment.edits]
    assert sorted(told, key=lambda e: e.start) == [e for one in pending for e in one.edits]
    held = {place for moment in moments if moment.held for place in moment.edits}
    assert not held & {place for one in pending if one.must for place in one.edits}
    assert all(moment.reason for moment in moments)
    assert moments == decide(pending, situation, cost, pays)


@given(pendings(), situations, costs, st.integers(1, 100))
def test_nothing_waits_in_the_cold_or_without_room(pending, situation, cost, pays):
    full = situation.context is not None and situation.tokens > situation.context
    if situation.cold or full:
        assert not any(m.held for m in decide(pending, situation, cost, pays))


@given(pendings(), situations, costs, st.integers(1, 100))
def test_nothing_is_held_once_its_break_even_has_passed(pending, situation, cost, pays):
    """With a provider: no set of held edits pays within the limit. With an engine: the second
    time, at the latest, nothing is held."""
    moments = decide(pending, situation, cost, pays)
    for moment in moments:
        if moment.held and moment.when is When.WAIT and not cost.splices:
            assert moment.calls is None or moment.calls >= pays - 0.1
    missed = Situation(**{**vars(situation), "tool_missed": True, "tool_runs": False})
    if cost.splices:
        assert not any(m.held for m in decide(pending, missed, cost, pays))


@given(pendings(), costs, st.integers(1, 100))
def test_patience_that_grows_ends_every_wait(pending, cost, pays):
    """An edit that saves anything is made for some number of calls, if a read costs anything."""
    situation = Situation(known=200_000, tokens=200_000, tool_missed=True)
    if cost.prices.read > 0.01 and all(one.saves > 0 for one in pending if not one.must):
        assert not any(m.held for m in decide(pending, situation, cost, 10**9))
