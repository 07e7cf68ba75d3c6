"""Edits of recorded runs are what policies make, and the same every time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.directive import apply
from leyline_agent.serving.render import ChatRenderer
from leyline_evals.fidelity.cases import Case, Kind, Order
from leyline_evals.fidelity.recorded import part_of, recorded_cases
from leyline_evals.fidelity.records import Selection
from leyline_evals.replay.workload import Workload


def test_cases_hold_together(cases: list[Case], selection: Selection) -> None:
    assert {case.kind for case in cases} >= {Kind.STUB, Kind.DROP}
    assert len({case.key for case in cases}) == len(cases)
    low, high = selection.tokens
    for case in cases:
        first, last = case.held[Order.EDIT_FIRST], case.held[Order.EDIT_LAST]
        assert case.directives[-1].end < first < last <= len(case.unedited)
        assert low <= len(case.unedited) <= high
        assert case.kept(Order.EDIT_LAST) > case.suffix >= selection.suffix
        assert case.edited == apply(case.unedited, case.directives)
        assert case.edited[-2:] == list(case.unedited[-2:])
        assert 2 <= len(case.continuation) <= 6


def test_the_newest_observation_is_new_where_the_edit_comes_first(
    cases: list[Case], chat: ChatRenderer
) -> None:
    for case in cases:
        new = chat.tokenizer.decode(case.unedited[case.held[Order.EDIT_FIRST] :])
        assert "<tool_response>" in new
        old = chat.tokenizer.decode(case.unedited[case.held[Order.EDIT_LAST] :])
        assert "assistant" in old
        assert "<tool_response>" not in old


def test_the_same_seed_draws_the_same(
    runs_file: Callable[..., Path], chat: ChatRenderer, selection: Selection, cases: list[Case]
) -> None:
    path = runs_file(9, 12, 7, chars=500)
    assert list(recorded_cases([path], chat, selection)) == cases
    other = selection.model_copy(update={"seed": 1})
    assert {c.key for c in recorded_cases([path], chat, other)} != {c.key for c in cases}


def test_parts_share_no_run(
    runs_file: Callable[..., Path], chat: ChatRenderer, selection: Selection
) -> None:
    path = runs_file(*range(6, 16), chars=300)
    parts = {run.id: part_of(run) for run in Workload([path])}
    assert set(parts.values()) == {"search", "test"}
    found = {
        part: {
            case.cluster.partition("/")[2].partition("#")[0]
            for case in recorded_cases([path], chat, selection.model_copy(update={"part": part}))
        }
        for part in ("search", "test")
    }
    assert all(parts[name] == part for part, names in found.items() for name in names)
    assert found["search"]
    assert found["test"]


def test_a_long_run_is_cut_to_its_last_turns(
    runs_file: Callable[..., Path], chat: ChatRenderer, selection: Selection
) -> None:
    small = selection.model_copy(update={"tokens": (100, 1500)})
    found = list(recorded_cases([runs_file(30, chars=300)], chat, small))
    assert found
    for case in found:
        assert len(case.unedited) <= 1500
        assert "Run the tests." in chat.tokenizer.decode(case.unedited)


def test_a_range_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens is none"):
        Selection(tokens=(10, 9))
