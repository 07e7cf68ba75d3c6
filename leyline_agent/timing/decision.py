"""The decision: for a turn's pending edits the moment of each, a pure function of numbers.

With a provider an edit makes the cache miss from its place on: tokens behind it are written anew
(`write`) that would have been read (`read`). In return every later call is shorter by what the
edit saves, at the price of a read. The tokens computed anyway cost nothing more, so a set of edits
is weighed together: those from one place to the end. Of all such sets the best one is made now, if
it has paid for itself after `pays_within` calls; what stands in front of it waits.

    cost  = (write - read) * behind + write * inserted - read * removed
    gain  = read * (removed - inserted) * pays_within
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline_agent.timing.costs import Costs
from leyline_agent.timing.moment import Moment, When
from leyline_agent.timing.pending import Pending

__all__ = ["Situation", "at_once", "decide"]


@dataclass(frozen=True)
class Situation:
    """What is going on when edits are pending.

    Attributes:
        known: tokens of the view that were sent or generated before; what a cache may hold.
        tokens: tokens of the view, the new ones included.
        tool_runs: whether a tool runs now, and no call is about to be made.
        calls_tools: whether the last reply called tools, so that another tool may soon run.
        tool_missed: edits were held for a tool before, and have not been made since.
        cold: why nothing is in the cache; "" when it may be warm.
        context: tokens that fit a call; None when unknown.
    """

    known: int
    tokens: int
    tool_runs: bool = False
    calls_tools: bool = False
    tool_missed: bool = False
    cold: str = ""
    context: int | None = None


def decide(
    pending: Sequence[Pending], situation: Situation, costs: Costs, pays_within: int
) -> tuple[Moment, ...]:
    """The moments of a turn's edits; every edit is in one of them.

    Args:
        pending: the edits, by place.
        situation: what is going on.
        costs: what edits cost with this engine.
        pays_within: how many calls may go by until an edit has paid for itself.
    """
    must = [one for one in pending if one.must]
    may = [one for one in pending if not one.must]
    at = When.TOOL if situation.tool_runs else When.NOW
    moments = [
        _moment([one for one in must if one.must == reason], at, reason)
        for reason in dict.fromkeys(one.must for one in must)
    ]
    # From here on everything is computed in any case.
    broken = min([situation.known, *(one.at for one in must)])
    anyway = _anyway(may, situation, broken)
    if anyway:
        moments.append(_moment(may, at, anyway))
    elif may and costs.splices:
        moments += _spliced(may, situation, costs, broken)
    elif may:
        moments += _prefilled(may, costs, broken, pays_within, at)
    return tuple(moments)


def at_once(pending: Sequence[Pending], why: str, tool_runs: bool) -> tuple[Moment, ...]:
    """All edits in this commit, for one reason."""
    return (_moment(pending, When.TOOL if tool_runs else When.NOW, why),)


def _anyway(may: Sequence[Pending], situation: Situation, broken: int) -> str:
    """Why all edits are made without weighing them; "" where they are weighed."""
    if situation.cold:
        return f"the cache is cold: {situation.cold}"
    if situation.context is not None and situation.tokens > situation.context:
        return f"{situation.tokens:,} tokens do not fit the {situation.context:,} of a call"
    if may and all(one.at >= broken for one in may):
        return "what stands behind them is computed in any case"
    return ""


def _spliced(
    may: Sequence[Pending], situation: Situation, costs: Costs, broken: int
) -> list[Moment]:
    """With an engine that keeps what stands behind an edit: only repairs take time."""
    free = [one for one in may if not one.repairs or one.at >= broken]
    repaired = [one for one in may if one.repairs and one.at < broken]
    at = When.TOOL if situation.tool_runs else When.NOW
    moments = [_moment(free, at, "the engine keeps what stands behind them")] if free else []
    if repaired:
        tokens = round(sum(one.repairs for one in repaired) * costs.repaired)
        moments.append(_repaired(repaired, tokens, situation, costs))
    return moments


def _repaired(edits: Sequence[Pending], tokens: int, situation: Situation, costs: Costs) -> Moment:
    work = f"repairs compute about {tokens:,} tokens"
    if costs.tokens_per_s:
        work += f" ({tokens / costs.tokens_per_s * 1e3:,.0f} ms)"
    if situation.tool_runs and costs.queue:
        why = f"{work}, and {costs.queue} other requests are at the engine"
        return _moment(edits, When.WAIT, why, cost=tokens)
    if situation.tool_runs:
        return _moment(edits, When.TOOL, f"{work} while nobody waits for them", cost=tokens)
    if not costs.edits_ahead:
        return _moment(edits, When.NOW, f"{work}; this engine cannot edit ahead", cost=tokens)
    if situation.tool_missed:
        return _moment(edits, When.NOW, f"{work}; they have waited for a tool before", cost=tokens)
    if not situation.calls_tools:
        return _moment(edits, When.NOW, f"{work}, and no tools are in use", cost=tokens)
    why = f"{work}; the next tool's time hides that"
    return _moment(edits, When.TOOL, why, cost=tokens, held=True)


def _prefilled(
    may: Sequence[Pending], costs: Costs, broken: int, pays_within: int, at: When
) -> list[Moment]:
    """With a prefix cache: the best of the sets from one place to the end, if it pays."""
    prices = costs.prices
    weighed = [_cost(may[first:], costs, broken) for first in range(len(may))]
    gains = [
        prices.read * sum(one.saves for one in may[first:]) * pays_within - cost
        for first, cost in enumerate(weighed)
    ]
    best = max(range(len(may)), key=lambda first: gains[first])
    taken = best if gains[best] > 0 else len(may)
    moments = []
    if now := may[taken:]:
        moments.append(_weighed(now, at, weighed[taken], costs, pays_within))
    if later := may[:taken]:
        # What they cost besides those that are made now.
        rest = _cost(later, costs, min(broken, now[0].at) if now else broken)
        moments.append(_weighed(later, When.WAIT, rest, costs, pays_within))
    return moments


def _cost(edits: Sequence[Pending], costs: Costs, broken: int) -> float:
    """What making these edits now costs, `broken` being computed from there on in any case."""
    prices = costs.prices
    ahead = [one for one in edits if one.at < broken]
    cost = sum(prices.write * (one.inserted - one.removed) for one in edits if one.at >= broken)
    if ahead:
        seen = sum(one.seen for one in ahead)
        behind = max(0, broken - ahead[0].at - seen)
        cost += (prices.write - prices.read) * behind - prices.read * seen
        cost += sum(prices.write * (one.inserted - (one.removed - one.seen)) for one in ahead)
    return cost


def _weighed(
    edits: Sequence[Pending], when: When, cost: float, costs: Costs, pays_within: int
) -> Moment:
    saves = sum(one.saves for one in edits)
    a_call = costs.prices.read * saves
    calls = max(cost, 0.0) / a_call if a_call > 0 else None
    paid = "never" if calls is None else f"after {calls:,.1f} calls"
    limit = f"{'not ' * (when is When.WAIT)}within {pays_within}"
    why = f"costs {cost:,.0f} uncached tokens, saves {saves:,} a call: pays {paid}, {limit}"
    if cost <= 0:
        why = f"this call is cheaper with them, by {-cost:,.0f} uncached tokens"
    return _moment(edits, when, why, cost=cost, calls=calls)


def _moment(
    edits: Sequence[Pending],
    when: When,
    reason: str,
    *,
    cost: float = 0.0,
    calls: float | None = None,
    held: bool = False,
) -> Moment:
    return Moment(
        when=when,
        held=held or when is When.WAIT,
        reason=reason,
        edits=tuple(edit for one in edits for edit in one.edits),
        saves=sum(one.saves for one in edits),
        cost=round(cost),
        calls=None if calls is None else round(calls, 1),
    )
