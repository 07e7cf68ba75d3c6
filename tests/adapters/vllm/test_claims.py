"""Claims: tokens decide what holds, whatever the client says."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_adapters.vllm.claims import common_prefix, verify
from leyline_adapters.vllm.wire import PROTOCOL, Ask, Claim
from leyline_agent.receipt import Reason


@dataclass
class Known:
    """A source: its tokens, all but the last with KV."""

    tokens: list[int]

    @property
    def held(self) -> int:
        return len(self.tokens) - 1


S = Known(list(range(100, 121)))
OTHER = Known([*range(100, 106), *range(300, 320)])


def find(handle):
    return {"s": S, "other": OTHER}.get(handle, Reason.UNKNOWN_SESSION)


def ask(*claims, base="", **more):
    return Ask(session="x", base=base, claims=[Claim(**c) for c in claims], **more)


def run(source, start, end, at):
    return {"source": source, "start": start, "end": end, "at": at}


def test_a_deletion_holds() -> None:
    prompt = S.tokens[:5] + S.tokens[9:20] + [1, 2]
    found = verify(prompt, ask(run("s", 0, 5, 0), run("s", 9, 20, 5), base="s"), find)
    assert found.reason is Reason.ASKED
    assert [(c.start, c.end, c.at, c.in_place) for c in found.claims] == [
        (0, 5, 0, True),
        (9, 20, 5, False),
    ]
    assert (found.parent, found.shared, found.fork) == (S, 5, 5)


def test_a_continuation_forks_nowhere() -> None:
    found = verify(S.tokens + [1], ask(run("s", 0, 20, 0), base="s"), find)
    assert (found.parent, found.shared, found.leaves, found.fork) == (S, 20, False, None)


def test_behind_a_change_of_the_same_length_nothing_is_in_place() -> None:
    """Its KV saw what stood there before, although no token moved."""
    prompt = [*S.tokens[:5], 1, 2, *S.tokens[7:20]]
    found = verify(prompt, ask(run("s", 0, 5, 0), run("s", 7, 20, 7), base="s"), find)
    assert [claim.in_place for claim in found.claims] == [True, False]
    assert (found.shared, found.fork) == (5, 7)


@pytest.mark.parametrize("base", ["", "s"])
def test_what_nobody_claims_is_not_the_lineages_although_its_tokens_are(base) -> None:
    found = verify(S.tokens[:20] + [1], ask(run("s", 0, 8, 0), base=base), find)
    assert (found.parent, found.shared, found.leaves, found.fork) == (S, 8, True, None)
    behind = ask(run("s", 0, 8, 0), run("s", 12, 20, 12), base=base)
    found = verify(S.tokens[:20] + [1], behind, find)
    assert (found.shared, found.leaves, found.fork) == (8, True, 12)


def test_a_base_alone_claims_nothing() -> None:
    found = verify(S.tokens[:20] + [1], ask(base="s"), find)
    assert (found.shared, found.leaves) == (0, True)


def test_a_claim_from_the_front_names_its_lineage_itself() -> None:
    """Its KV is the source's, spliced where the source's is, whether or not a base is named."""
    found = verify(S.tokens[:8] + [1], ask(run("s", 0, 8, 0)), find)
    assert (found.parent, found.shared, found.fork) == (S, 8, None)


def test_without_claims_and_base_there_is_no_lineage() -> None:
    found = verify(S.tokens, ask(), find)
    assert (found.claims, found.parent, found.fork, found.reason) == ((), None, None, Reason.ASKED)


def test_another_source_in_front_of_the_base_is_no_continuation() -> None:
    prompt = S.tokens[:6] + [1]
    found = verify(prompt, ask(run("other", 0, 6, 0), base="s"), find)
    assert (found.parent, found.shared, found.fork) == (S, 0, 0)


@pytest.mark.parametrize(
    ("claims", "kept", "said"),
    [
        ([run("s", 0, 5, 0), run("s", 9, 21, 5)], [(0, 5), (9, 20)], "KV of 20 tokens"),
        ([run("s", 0, 6, 0)], [(0, 5)], "token 5 of the prompt is another"),
        ([run("s", 0, 5, 0), run("s", 8, 20, 5)], [(0, 5)], "token 5 of the prompt is another"),
        ([run("s", 0, 5, 0), run("s", 4, 6, 4)], [(0, 5)], "overlaps"),
        ([run("s", 30, 40, 0)], [], "KV of 20 tokens"),
        ([run("s", 0, 5, 90)], [], "the prompt has 18 tokens"),
    ],
)
def test_what_does_not_hold_is_cut_off_with_a_reason(claims, kept, said) -> None:
    prompt = S.tokens[:5] + S.tokens[9:20] + [1, 2]
    found = verify(prompt, ask(*claims, base="s"), find)
    assert [(c.start, c.end) for c in found.claims] == kept
    assert found.reason is Reason.INVALID_EDIT
    assert said in found.detail


@pytest.mark.parametrize("base", ["", "gone"])
def test_an_unknown_handle_refuses_everything(base) -> None:
    found = verify(S.tokens, ask(run("gone", 0, 5, 0), base=base), find)
    assert (found.claims, found.reason) == ((), Reason.UNKNOWN_SESSION)
    assert "gone" in found.detail


def test_another_protocol_is_refused() -> None:
    found = verify(S.tokens, ask(run("s", 0, 5, 0), protocol=PROTOCOL + 1), find)
    assert (found.claims, found.reason) == ((), Reason.ENGINE_CANNOT_SPLICE)


small = st.lists(st.integers(0, 2), max_size=12)


@given(left=small, right=small)
def test_common_prefix(left, right) -> None:
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]


@given(
    tokens=st.lists(st.integers(0, 2), min_size=2, max_size=30),
    prompt=st.lists(st.integers(0, 2), max_size=30),
    claims=st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 12), st.integers(0, 30)), max_size=5
    ),
)
def test_nothing_unequal_ever_holds(tokens, prompt, claims) -> None:
    """Whatever is claimed: what is granted is equal, held, in the prompt, and granted once."""
    source = Known(tokens)
    asked = ask(*(run("s", start, start + size, at) for start, size, at in claims), base="s")
    found = verify(prompt, asked, lambda handle: source)
    stop = 0
    for claim in found.claims:
        assert source.tokens[claim.start : claim.end] == prompt[claim.at : claim.stop]
        assert claim.end <= source.held
        assert stop <= claim.at
        assert claim.stop <= len(prompt)
        stop = claim.stop
    granted = sum(claim.end - claim.start for claim in found.claims)
    wanted = sum(size for _, size, _ in claims)
    assert (found.reason is Reason.ASKED) == (granted == wanted)
    assert found.shared <= common_prefix(tokens, prompt)
