"""The history processor on histories of any kind; SWE-agent itself is in tests/harnesses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_adapters.harnesses.swe_agent import LeylineHistory
from leyline_agent.errors import LeylineError

POLICIES = ["truncate_older_than:n=1,max_chars=8", "keep_last:n=1", "drop_failed_calls+dedupe"]
Item = dict[str, Any]


def item(role: str, content: str, **more: Any) -> Item:
    kind = "action" if role == "assistant" else "observation"
    return {"role": role, "content": content, "agent": "main", "message_type": kind, **more}


def step(number: int, output: str, as_text: bool, tags: list[str]) -> list[Item]:
    if as_text:
        return [item("assistant", f"run {number}"), item("user", output, tags=tags)]
    function = {"name": "bash", "arguments": f'{{"command": "run {number}"}}'}
    call = {"id": f"c{number}", "type": "function", "function": function}
    return [
        item("assistant", "", tool_calls=[call]),
        item("tool", output, tool_call_ids=[f"c{number}"], tags=tags),
    ]


outputs = st.sampled_from(["ok", "Error: no such file", "line of output\n" * 20])
steps = st.lists(
    st.tuples(outputs, st.sampled_from([[], [], ["keep_output"]])), min_size=1, max_size=8
)


@settings(deadline=None, max_examples=40)
@given(steps, st.booleans(), st.sampled_from(POLICIES))
def test_pairs_stay_the_record_is_untouched_and_the_view_is_stable(
    given_steps: list[tuple[str, list[str]]], as_text: bool, policies: str
) -> None:
    processor = LeylineHistory(policies)
    history = [item("system", "You fix bugs."), item("user", "Task")]
    for number, (output, tags) in enumerate(given_steps):
        history += step(number, output, as_text, tags)
        before = copy.deepcopy(history)
        shown = processor(history)
        assert history == before
        assert processor(history) == shown, "the view changed where nothing was new"
        assert shown[:2] == history[:2]
        made = [call["id"] for one in shown for call in one.get("tool_calls") or ()]
        answered = [id for one in shown for id in one.get("tool_call_ids") or ()]
        assert made == answered
        kept = [one for one in history if "keep_output" in one.get("tags", ())]
        assert [one for one in shown if "keep_output" in one.get("tags", ())] == kept
        assert not processor.leyline.bypassed


def test_no_adapter_or_recall_where_calls_are_not_ours_to_make() -> None:
    with pytest.raises(LeylineError, match="recall"):
        LeylineHistory(POLICIES[0], recall=True)


def test_the_users_own_pins_hold_beside_swe_agents() -> None:
    long = "line of output\n" * 20
    history = [item("system", "s"), item("user", "Task")]
    for number in range(4):
        history += step(number, long + str(number), False, [])
    pinned = LeylineHistory(POLICIES[0], pinned=lambda m: str(m.get("content")).endswith("0"))
    shown = pinned(history)
    assert [len(one["content"]) > 50 for one in shown if one["role"] == "tool"] == [
        True,
        False,
        False,
        True,
    ]
