"""Redactions of one message in one turn are all in force in that turn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent import LeylineWarning, Session
from leyline_agent.edit import Edit, apply, check
from leyline_agent.errors import EditError
from leyline_agent.policy import FunctionPolicy, Pipeline, Policy, policy
from leyline_agent.redaction import in_force
from leyline_agent.testing import tool_call
from leyline_agent.trajectory import Trajectory

MESSAGES: list[dict[str, Any]] = [
    {"role": "user", "content": "task"},
    tool_call("bash", id="a", command="env"),
    {"role": "tool", "tool_call_id": "a", "content": "ALPHA BETA GAMMA"},
]


class Without(Policy):
    """Redact a word."""

    word: str

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        for index, message in enumerate(trajectory.messages):
            text = str(message.get("content"))
            if self.word in text:
                bare = {**message, "content": text.replace(self.word, "-")}
                yield Edit(index, index + 1, (bare,), redact=True)


def sent(session: Session) -> str:
    return json.dumps(session.begin(MESSAGES).request["messages"])


@pytest.mark.parametrize("words", [("ALPHA", "BETA"), ("BETA", "GAMMA", "ALPHA")])
def test_several_policies_redact_one_message(words: Sequence[str]) -> None:
    session = Session(Pipeline(policies=tuple(Without(word=word) for word in words)))
    assert not any(word in sent(session) for word in words)
    assert session.skipped == ()


def test_one_policy_may_yield_an_edit_for_each_secret() -> None:
    @policy
    def each(trajectory: Trajectory) -> Iterator[Edit]:
        for word in ("ALPHA", "BETA", "GAMMA"):
            yield from Without(word=word).edits(trajectory)

    session = Session(each)
    assert "- - -" in sent(session)
    assert session.skipped == ()


def test_beside_what_the_harness_redacts() -> None:
    session = Session(Without(word="ALPHA"))
    bare = {**MESSAGES[2], "content": "ALPHA and the rest"}
    session.edit(Edit(2, 3, (bare,), redact=True))
    turn = session.begin(MESSAGES)
    assert turn.request["messages"][2]["content"] == "- and the rest"
    assert [edit.redact for edit in turn.edits] == [True]


def test_what_another_edit_quotes() -> None:
    @policy
    def note(trajectory: Trajectory) -> Iterator[Edit]:
        said = {"role": "user", "content": f"note: {trajectory.messages[2]['content']}"}
        yield Edit(3, 3, (said,))

    turn = Session(Pipeline(policies=(note, Without(word="BETA")))).begin(MESSAGES)
    assert turn.request["messages"][3]["content"] == "note: ALPHA - GAMMA"
    assert [(edit.policy, edit.redact) for edit in turn.edits] == [
        ("without", True),
        ("note", False),
    ]


@pytest.mark.parametrize("first", [True, False])
def test_the_wider_of_two_wins(first: bool) -> None:
    @policy
    def drop(trajectory: Trajectory) -> Iterator[Edit]:
        for call in trajectory.tool_calls:
            yield Edit(call.index, call.index + 2, redact=True)

    parts = (drop, Without(word="BETA")) if first else (Without(word="BETA"), drop)
    session = Session(Pipeline(policies=parts))
    assert session.begin(MESSAGES).request["messages"] == MESSAGES[:1]
    assert session.skipped == ()


def test_an_illegal_redaction_is_told_and_takes_no_other_with_it() -> None:
    alone = FunctionPolicy(function=lambda t: [Edit(2, 3, redact=True)], label="alone")
    session = Session(Pipeline(policies=(alone, Without(word="BETA"))))
    with pytest.warns(LeylineWarning, match="alone: an edit of .* skipped"):
        assert "ALPHA - GAMMA" in sent(session)


def test_a_policy_that_never_ends_is_told() -> None:
    @policy
    def restless(trajectory: Trajectory) -> Iterator[Edit]:
        message = trajectory.messages[2]
        for end in ("x", "y"):
            longer = {**message, "content": message["content"] + end}
            yield Edit(2, 3, (longer,), redact=True)

    with pytest.warns(LeylineWarning, match="restless: .*OverlappingSpans"):
        Session(restless).begin(MESSAGES)


def test_a_result_s_redaction_leaves_behind_what_the_harness_keeps_beside_it() -> None:
    message = {**MESSAGES[2], "name": "bash", "is_error": True, "extra": {"raw": ["ALPHA"]}}
    (result,) = Trajectory([*MESSAGES[:2], message]).tool_results
    assert result.replace("-", redact=True).replacement == (
        {**MESSAGES[2], "name": "bash", "is_error": True, "content": "-"},
    )
    assert result.replace("-").replacement[0]["extra"] == {"raw": ["ALPHA"]}


spans = st.builds(
    lambda start, length, num: Edit(
        start, start + length, ({"role": "user", "content": "x"},) * num, redact=True
    ),
    st.integers(1, 8),
    st.integers(0, 4),
    st.integers(0, 3),
)


@given(st.lists(spans, max_size=4), spans)
def test_folding_is_one_edit_after_the_other(batch: list[Edit], later: Edit) -> None:
    view = Trajectory([{"role": "user", "content": str(i)} for i in range(9)])
    try:
        legal = check(batch, view.messages)
        edited = view.edited(legal)
        check([later], edited.messages)
    except EditError:
        return
    if later.start == later.end:
        return
    asked: list[Trajectory] = []

    def once(trajectory: Trajectory) -> list[Edit]:
        asked.append(trajectory)
        return [later] if len(asked) == 1 else []

    folded = [want for want in in_force(batch, view, [once]) if isinstance(want, Edit)]
    assert apply(check(folded, view.messages), view.messages) == apply([later], edited.messages)
