"""What a client says its directives lead to, held against the tokens it sends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import StaleSession
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.turns import plan_tokens
from leyline_agent.serving.wire import TokenCommit

TOKENS = st.lists(st.integers(0, 2), max_size=12)  # few symbols: claims often half hold


@st.composite
def claims(draw: st.DrawFn) -> tuple[list[int], list[Directive], list[int]]:
    """A cached sequence, directives on it, and the tokens that are sent."""
    previous = draw(st.lists(st.integers(0, 2), min_size=1, max_size=20))
    cuts = sorted(draw(st.lists(st.integers(0, len(previous)), max_size=6, unique=True)))
    directives = [
        Directive(start, end, tuple(draw(TOKENS)[:3]), draw(st.sampled_from(Mode)))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    claimed = apply(previous, directives)
    kept = claimed[: draw(st.integers(0, len(claimed)))] if draw(st.booleans()) else claimed
    return previous, directives, [*kept, *draw(TOKENS)] or [0]


def session_of(previous: list[int]) -> EngineSession:
    pool = SlotPool(64)
    sequence = CachedSequence(pool)
    sequence.extend(previous)
    session = EngineSession("", "run")
    length = len(previous)
    session.add(Version(1, 0, "d", None, sequence, length, Receipt()))
    return session


def wire(directives: list[Directive], **more: Any) -> TokenCommit:
    items = [
        {"start": d.start, "end": d.end, "replacement": list(d.replacement), "mode": d.mode}
        for d in directives
    ]
    body = {"session": "run", "base_version": 1, "version": 2, "directives": items, **more}
    return TokenCommit.model_validate(body)


@given(claims())
def test_what_is_kept_really_stands_in_the_prompt(
    claim: tuple[list[int], list[Directive], list[int]],
) -> None:
    previous, directives, tokens = claim
    turn = plan_tokens(tokens, "", session_of(previous), wire(directives))
    prompt = turn.prompt
    done = [item.directive for item in prompt.items]
    assert prompt.tokens == tokens
    # Applied, the directives give the prompt up to what is appended.
    assert apply(previous, done) == tokens[: len(tokens) - prompt.appended]
    assert 0 <= prompt.appended <= len(tokens)


@given(claims())
def test_what_was_asked_for_is_done_or_told(
    claim: tuple[list[int], list[Directive], list[int]],
) -> None:
    previous, directives, tokens = claim
    prompt = plan_tokens(tokens, "", session_of(previous), wire(directives)).prompt
    claimed = apply(previous, directives)
    done = [item.directive for item in prompt.items]
    if tokens[: len(claimed)] == claimed:
        assert done == directives
    else:
        *asked, rest = prompt.items
        assert [item.directive for item in asked] == directives[: len(asked)]
        assert rest.reason is Reason.UNDECLARED
        assert rest.directive.mode is Mode.FORGET
        assert rest.directive.end == len(previous)


def test_the_same_commit_again_is_a_retry() -> None:
    session = session_of([1, 2, 3, 4])
    again = wire([], base_version=0, version=1)
    turn = plan_tokens([1, 2, 3], "", session, again, "d")
    assert turn.reason is Reason.RETRY
    assert turn.prompt.previous is session.versions[1].sequence
    assert [item.directive for item in turn.prompt.items] == [Directive(3, 4, (), Mode.FORGET)]
    other = plan_tokens([1, 2, 3], "", session, again, "another digest")
    assert other.reason is Reason.STALE_VERSION
    assert other.prompt.previous is None


def test_another_commit_of_the_same_number_is_refused() -> None:
    session = session_of([1, 2, 3, 4])
    session.add(replace(session.versions[1], number=2, base=1))
    with pytest.raises(StaleSession, match="version 2 of session 'run'"):
        plan_tokens([1, 2, 3], "", session, wire([]), "another digest")
