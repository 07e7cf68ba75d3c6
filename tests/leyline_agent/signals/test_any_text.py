"""Whatever a run holds, looking for signals in it never fails and always says the same."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.signals import failures, stale
from leyline_agent.trajectory import Trajectory

words = st.sampled_from(
    "cat sed head tail -n -i 5p '1,9p' a.py /r/b.py | && ; > << E \n E\n cd $( ` ' \" git apply "
    "python open('a','w') <returncode>1</returncode> Traceback (most recent call last): "
    "ValueError: Error: <exception> timed out [File: a (3 lines total)] ``` <function=bash> "
    "<parameter=command> </parameter> </function> === 1 failed".split(" ")
)
texts = st.lists(words | st.text(max_size=5), max_size=12).map(" ".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
NAMES = ["bash", "view", "open", "edit", "ViewCode", "str_replace_editor", "grep", "nobody"]
ARGUMENTS = ["command", "path", "start", "end", "view_range", "files", "text", "file_path"]
arguments = st.dictionaries(st.sampled_from(ARGUMENTS), values) | texts | st.none()


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "task"}]
    for number in range(draw(st.integers(1, 5))):
        name, given_arguments = draw(st.sampled_from(NAMES)), draw(arguments)
        call = {"id": f"c{number}", "function": {"name": name, "arguments": given_arguments}}
        result = {"role": "tool", "tool_call_id": f"c{number}", "content": draw(texts)}
        extra = draw(st.none() | st.fixed_dictionaries({"returncode": values}))
        messages.append({"role": "assistant", "content": draw(texts), "tool_calls": [call]})
        messages.append({**result, "extra": extra, "is_error": draw(st.booleans())})
    return messages


@settings(deadline=None)
@given(histories())
def test_native_calls(messages: list[dict[str, Any]]) -> None:
    trajectory = Trajectory(messages=messages)
    places = [result.index for result in trajectory.tool_results]
    assert {failed.index for failed in failures(trajectory)} <= set(places)
    for item in stale(trajectory):
        assert item.superseded_by in places
        assert item.superseded_by > item.result.index
    assert failures(trajectory) == failures(Trajectory(messages=messages))
    assert stale(trajectory) == stale(Trajectory(messages=messages))


@settings(deadline=None)
@given(st.lists(texts, max_size=8))
def test_plain_text(turns: list[str]) -> None:
    roles = ["user", "assistant"] * 5
    messages = [{"role": r, "content": t} for r, t in zip(roles, turns, strict=False)]
    trajectory = Trajectory(messages=messages, observations="user")
    assert len(failures(trajectory)) <= len(trajectory.tool_results)
    assert len(stale(trajectory)) <= len(trajectory.tool_results)


@pytest.mark.parametrize(
    "piece",
    ["```x\n", "<function=a>", "</function>", "<parameter=a>", "$(", "'", '"', "\\", " ", "\n"]
    + ["<<E\n", "|", "cd a && ", "open('a', 'w');", "x = 'a'\n", "+++ b/a\n", "<exception>"]
    + ["Traceback (most recent call last)\n", "= 1 failed ", "Error: ", "New string '", "bash-$ "],
)
def test_no_text_takes_more_than_linear_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    function = {"name": "bash", "arguments": json.dumps({"command": text})}
    native = [
        {"role": "assistant", "tool_calls": [{"id": "a", "function": function}]},
        {"role": "tool", "tool_call_id": "a", "content": text},
    ]
    spoken = [{"role": "assistant", "content": text}, {"role": "user", "content": text}]
    started = time.process_time()
    for trajectory in (Trajectory(native), Trajectory(spoken, observations="user")):
        failures(trajectory)
        stale(trajectory)
    assert time.process_time() - started < 3
