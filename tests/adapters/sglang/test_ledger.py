from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_adapters.sglang.ledger import Ledger, Owner, Plan
from leyline_adapters.sglang.spaces import SHARED, as_tokens
from leyline_adapters.sglang.turns import Turn
from leyline_adapters.vllm.wire import Ask, Claim, Told
from leyline_agent.receipt import Reason

ANN = Owner("", "", "ann")
BEN = Owner("", "", "ben")


def ask(*claims: tuple[str, int, int, int], base: str = "", **more: object) -> Ask:
    made = tuple(Claim(source=s, start=a, end=b, at=at) for s, a, b, at in claims)
    return Ask.model_validate({"session": "s", "base": base, "claims": made, **more})


def held(ledger: Ledger, tokens: Sequence[int], owner: Owner = ANN, rid: str = "r") -> Plan:
    plan = ledger.plan(owner, rid, tokens, ask())
    ledger.keep(owner, plan, tokens)
    return plan


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(b"secret")


def test_a_first_request_is_canonical_and_gets_a_handle(ledger: Ledger) -> None:
    plan = held(ledger, range(10))

    assert (plan.space, plan.pieces, plan.reason) == (SHARED, (), Reason.ASKED)
    assert len(plan.handle) == 40


def test_a_deletion_makes_a_space(ledger: Ledger) -> None:
    handle = held(ledger, range(100)).handle
    prompt = [*range(20), *range(50, 100), 7, 8]

    plan = ledger.plan(ANN, "q", prompt, ask((handle, 0, 20, 0), (handle, 50, 100, 20)))

    assert plan.space.name
    assert list(plan.space.tokens) == prompt[:-2]
    assert plan.space.spliced_from == 20
    assert [(p.start, p.end, p.at) for p in plan.pieces] == [(0, 20, 0), (50, 100, 20)]


def test_the_same_again_finds_the_same_space_under_another_handle(ledger: Ledger) -> None:
    handle = held(ledger, range(100)).handle
    wanted = ask((handle, 0, 20, 0), (handle, 50, 100, 20))
    prompt = [*range(20), *range(50, 100), 7]

    once, again = (ledger.plan(ANN, rid, prompt, wanted) for rid in ("q", "r2"))

    assert once.space == again.space
    assert once.handle != again.handle


def test_ranks_agree_and_servers_do_not() -> None:
    plans = []
    for secret in (b"one", b"one", b"two"):
        ledger = Ledger(secret)
        handle = held(ledger, range(30)).handle
        plans.append(ledger.plan(ANN, "q", [*range(5), *range(9, 30)], ask((handle, 0, 5, 0))))

    assert plans[0].handle == plans[1].handle != plans[2].handle


@pytest.mark.parametrize(
    "stranger", [BEN, Owner("other", "", "ann"), Owner("", "salted", "ann")], ids=repr
)
def test_a_handle_is_good_for_its_owner_alone(ledger: Ledger, stranger: Owner) -> None:
    handle = held(ledger, range(30)).handle

    plan = ledger.plan(stranger, "q", list(range(30)), ask((handle, 0, 30, 0), base=handle))

    assert (plan.reason, plan.space, plan.pieces) == (Reason.UNKNOWN_SESSION, SHARED, ())


def test_a_lineage_goes_on_in_its_space(ledger: Ledger) -> None:
    handle = held(ledger, range(30)).handle
    edited = [*range(5), *range(9, 30), 1]
    first = ledger.plan(ANN, "q", edited, ask((handle, 0, 5, 0), (handle, 9, 30, 5)))
    ledger.keep(ANN, first, edited)
    longer = [*edited, 2, 3]

    plan = ledger.plan(ANN, "q2", longer, ask((first.handle, 0, len(edited), 0)))

    assert (plan.space, plan.pieces) == (first.space, ())


@pytest.mark.parametrize(("end", "spliced_from"), [(5, None), (9, 5)])
def test_what_is_forgotten_is_not_looked_for_where_it_is(
    ledger: Ledger, end: int, spliced_from: int | None
) -> None:
    handle = held(ledger, range(30)).handle
    edited = [*range(5), *range(9, 30), 1]
    first = ledger.plan(ANN, "q", edited, ask((handle, 0, 5, 0), (handle, 9, 30, 5)))
    ledger.keep(ANN, first, edited)

    plan = ledger.plan(ANN, "q2", edited, ask((first.handle, 0, end, 0), base=first.handle))

    assert plan.space not in (SHARED, first.space)
    assert plan.space.spliced_from == spliced_from
    assert [piece.stop for piece in plan.pieces] == [end]
    nothing = ledger.plan(ANN, "q3", edited, ask(base=first.handle))
    assert (nothing.space, nothing.pieces) == (SHARED, ())


def test_a_gap_ends_what_is_brought(ledger: Ledger) -> None:
    handle = held(ledger, range(30)).handle
    prompt = [*range(5), 77, *range(9, 30), 1]

    plan = ledger.plan(ANN, "q", prompt, ask((handle, 0, 5, 0), (handle, 9, 30, 6)))

    assert plan.pieces == ()
    assert plan.reason is Reason.INVALID_EDIT
    assert "gap" in plan.detail


def test_the_last_token_is_computed(ledger: Ledger) -> None:
    handle = held(ledger, range(30)).handle
    prompt = [*range(5), *range(9, 30)]

    plan = ledger.plan(ANN, "q", prompt, ask((handle, 0, 5, 0), (handle, 9, 30, 5)))

    assert plan.pieces[-1].stop == len(prompt) - 1


def test_released_handles_are_forgotten(ledger: Ledger) -> None:
    handle = held(ledger, range(30)).handle

    ledger.plan(ANN, "q", [1, 2], ask(release=(handle,)))

    assert ledger.find(ANN, handle) is None


def test_others_cannot_release_a_handle(ledger: Ledger) -> None:
    handle = held(ledger, range(30)).handle

    ledger.plan(BEN, "q", [1, 2], ask(release=(handle,)))

    assert ledger.find(ANN, handle) is not None


def test_the_oldest_are_forgotten_first() -> None:
    ledger = Ledger(b"secret", sources=3, tokens=100)
    handles = [held(ledger, range(20), rid=str(n)).handle for n in range(3)]
    ledger.find(ANN, handles[0])

    held(ledger, range(50), rid="large")

    assert [ledger.find(ANN, h) is not None for h in handles] == [True, False, True]

    held(ledger, range(90), rid="larger")

    assert len(ledger) == 1


def test_what_nobody_keeps_has_no_handle(ledger: Ledger) -> None:
    plan = ledger.plan(ANN, "q", [1, 2, 3], ask(keep=False))
    ledger.keep(ANN, plan, [1, 2, 3])

    assert (plan.handle, len(ledger)) == ("", 0)


@dataclass
class Tree:
    """A prefix cache by space. A token's KV is what was in front of it when it was computed."""

    found: dict[tuple[str, tuple[int, ...]], tuple[int, ...]] = field(default_factory=dict)

    def look_up(self, space: str, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        values = []
        for end in range(1, len(tokens) + 1):
            value = self.found.get((space, tuple(tokens[:end])))
            if value is None:
                break
            values.append(value)
        return values

    def put(self, space: str, tokens: Sequence[int], values: Sequence[tuple[int, ...]]) -> None:
        for end, value in enumerate(values, 1):
            self.found.setdefault((space, tuple(tokens[:end])), value)

    def serve(self, turn: Turn) -> tuple[Told, list[tuple[int, ...]]]:
        """What the plug-in does: bring the pieces, look up, compute the rest."""
        plan, prompt = turn.plan, list(turn.prompt)
        if plan.pieces:
            values = []
            for piece in plan.pieces:
                source = self.look_up(piece.source.space.name, piece.source.tokens)
                values += source[piece.start : piece.end]
            self.put(plan.space.name, plan.space.tokens, values)
        cached = self.look_up(plan.space.name, prompt)[: len(prompt) - 1]
        behind = cached[-1] if cached else ()
        values = [*cached]
        for token in prompt[len(cached) :]:
            behind = (*behind, token)
            values.append(behind)
        self.put(plan.space.name, prompt, values)
        return turn.told(len(cached)), values


@st.composite
def conversations(
    draw: st.DrawFn,
) -> list[tuple[int, list[int], list[tuple[int, int]], list[int], int]]:
    """Requests: each edits an earlier one (by number) by cuts, perhaps a lie, and adds tokens.

    Of the runs that are kept the first so many are claimed; what is behind them is forgotten.
    """
    tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)
    number = draw(st.integers(1, 6))
    return [
        (
            draw(st.integers(0, max(index - 1, 0))),
            draw(tokens),
            draw(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4)), max_size=2)),
            draw(st.lists(st.integers(0, 30), max_size=1)),
            draw(st.sampled_from([9, 9, 1, 0])),
        )
        for index in range(number)
    ]


@settings(max_examples=300, deadline=None)
@given(conversations())
def test_figures_are_true_and_spliced_kv_stays_in_its_space(
    requests: list[tuple[int, list[int], list[tuple[int, int]], list[int], int]],
) -> None:
    ledger, tree = Ledger(b"secret"), Tree()
    known: list[tuple[str, list[int]]] = []
    for number, (base, new, cuts, lies, claimed) in enumerate(requests):
        handle, tokens = known[base] if known else ("", [])
        claims, prompt, cursor = [], [], 0
        for start, length in [*sorted(cuts), (len(tokens), 0)]:
            start = max(cursor, min(start, len(tokens)))
            if start > cursor:
                claims.append((handle, cursor, start, len(prompt)))
                prompt += tokens[cursor:start]
            cursor = min(start + length, len(tokens))
        prompt += new
        for place in lies:
            prompt[place % len(prompt)] = 3
        del claims[claimed:]
        plan = ledger.plan(ANN, str(number), prompt, ask(*claims, base=handle))
        told, values = tree.serve(Turn(ANN, plan, prompt))

        exact = [value == tuple(prompt[: end + 1]) for end, value in enumerate(values)]
        assert all(exact[: told.reused_exact])
        if told.spliced_from is None:
            assert all(exact)
        stop = max((at + end - start for _, start, end, at in claims), default=0)
        for at in range(max(stop, 1), len(values)):
            assert values[at] == (*values[at - 1], prompt[at])  # computed behind what is there
        ledger.keep(ANN, plan, as_tokens(prompt))
        known.append((plan.handle, prompt))
    for (space, prefix), value in tree.found.items():
        assert space or value == prefix
