"""What holds for every pipeline of the built-in policies, on any history."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent import edit
from leyline_agent.policy import Pipeline, Policy, as_policy, available, parse
from leyline_agent.trajectory import Observations, Trajectory
from leyline_policies.drop_failed_calls import DropFailedCalls
from leyline_policies.keep_all import KeepAll
from leyline_policies.keep_last import KeepLast
from leyline_policies.stale_reads import StaleReads
from leyline_policies.truncate_older_than import TruncateOlderThan

BUILT_IN = {
    "keep_all": KeepAll,
    "truncate_older_than": TruncateOlderThan,
    "keep_last": KeepLast,
    "drop_failed_calls": DropFailedCalls,
    "stale_reads": StaleReads,
}

COMMANDS = [
    "cat a.py",
    "sed -n '1,9p' a.py",
    "sed -i s/a/b/ a.py",
    "cat a.py b.py",
    "python test.py",
    "python test.py | tail -5",
    "cd sub && rm a.py",
    "grep -n x a.py",
]
OUTPUTS = [
    "",
    "short",
    "line\n" * 100,
    "Traceback (most recent call last):\n" + "  x\n" * 90 + "ValueError: no",
    "<returncode>1</returncode>\n<output>\n" + "error: no\n" * 60 + "</output>",
    "<returncode>0</returncode>\n<output>\n" + "x\n" * 400 + "</output>",
    "Error:\nparameter `path` is required " + "y" * 300,
]

policies = st.lists(
    st.one_of(
        st.just(KeepAll()),
        st.builds(TruncateOlderThan, n=st.integers(1, 4), max_chars=st.integers(40, 400)),
        st.builds(
            KeepLast,
            n=st.integers(0, 4),
            polling=st.integers(1, 3),
            keep_first=st.integers(0, 2),
            clear_at_least=st.sampled_from([0, 50, 500]),
            exclude_tools=st.sampled_from([(), ("bash",), ("view",)]),
            placeholder=st.sampled_from(["gone", "[Earlier output removed: old tool output]"]),
        ),
        st.builds(DropFailedCalls, after=st.integers(1, 4)),
        st.just(StaleReads()),
    ),
    min_size=1,
    max_size=4,
    unique_by=type,
).map(as_policy)
quick = settings(deadline=None, max_examples=50)


@st.composite
def turns(draw: st.DrawFn, first: int = 0) -> list[dict[str, Any]]:
    """Assistant turns of one or more parallel calls, each with its result, and small talk."""
    messages: list[dict[str, Any]] = []
    for number in range(first, first + draw(st.integers(1, 8))):
        calls, results = [], []
        for position in range(draw(st.sampled_from([1, 1, 1, 2]))):
            name, arguments = draw(
                st.tuples(st.just("bash"), st.sampled_from(COMMANDS)).map(
                    lambda pair: (pair[0], {"command": pair[1]})
                )
                | st.just(("view", {"path": "a.py"}))
                | st.just(("edit", {"path": "a.py", "new_code": "x"}))
            )
            call_id = f"call-{number}-{position}"
            function = {"name": name, "arguments": json.dumps(arguments)}
            calls.append({"id": call_id, "type": "function", "function": function})
            content: Any = draw(st.sampled_from(OUTPUTS))
            if draw(st.integers(0, 9)) == 0:
                content = [{"type": "text", "text": content}]
            results.append({"role": "tool", "tool_call_id": call_id, "content": content})
        messages.append({"role": "assistant", "content": "hm", "tool_calls": calls})
        messages += results
        if draw(st.integers(0, 5)) == 0:
            messages.append({"role": "user", "content": "Go on."})
    return messages


HEAD = [{"role": "system", "content": "s" * 900}, {"role": "user", "content": "task " * 200}]


def texts(trajectory: Trajectory) -> list[int]:
    return [len(result.content) for result in trajectory.tool_results]


@quick
@given(turns(), policies)
def test_any_pipeline_yields_legal_edits_that_shorten(
    messages: list[dict[str, Any]], policy: Policy
) -> None:
    trajectory = Trajectory(messages=[*HEAD, *messages])
    edits = policy.propose(trajectory)
    edit.check(edits, trajectory.messages)
    view = trajectory.edited(edits)
    assert [m["role"] for m in view.messages] == [m["role"] for m in trajectory.messages]
    assert [r.call and r.call.id for r in view.tool_results] == [
        r.call and r.call.id for r in trajectory.tool_results
    ]
    edited = {e.start for e in edits}
    for before, after in zip(trajectory.tool_results, view.tool_results, strict=True):
        if before.index in edited:
            assert len(after.content) < len(before.content)
        else:
            assert after.message is before.message


@quick
@given(turns(), policies)
def test_nothing_new_means_no_edits(messages: list[dict[str, Any]], policy: Policy) -> None:
    trajectory = Trajectory(messages=[*HEAD, *messages])
    assert policy.propose(trajectory) == policy.propose(trajectory)
    view = trajectory.edited(policy.propose(trajectory))
    assert policy.propose(view) == []


@quick
@given(turns(), turns(first=100), policies)
def test_a_result_is_edited_at_most_once_as_the_run_grows(
    messages: list[dict[str, Any]], more: list[dict[str, Any]], policy: Policy
) -> None:
    view = Trajectory(messages=HEAD)
    edited: set[int] = set()
    for message in [*messages, *more]:
        view = view.extended([message])
        if message["role"] == "assistant":
            continue
        edits = policy.propose(view)
        assert edited.isdisjoint(e.start for e in edits)
        edited |= {e.start for e in edits}
        view = view.edited(edits)


@quick
@given(turns(), policies)
def test_a_view_that_lost_its_history_is_stable_too(
    messages: list[dict[str, Any]], policy: Policy
) -> None:
    trajectory = Trajectory(messages=[*HEAD, *messages])
    seen = trajectory
    for _ in range(6):
        seen = Trajectory(messages=trajectory.edited(policy.propose(trajectory)).messages)
        if texts(seen) == texts(trajectory):
            break
        trajectory = seen
    assert policy.propose(seen) == []


@pytest.mark.parametrize("observations", ["tool", "user"])
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_policy_runs_on_degenerate_views(name: str, observations: Observations) -> None:
    policy = parse(name)
    for messages in (
        [],
        [{"role": "user", "content": "hi"}],
        [{"role": "tool", "content": "orphan " * 99}],
        [{"role": "assistant", "content": None}, {"role": "user", "content": None}],
        [{"role": "assistant", "tool_calls": [{"id": None, "function": None}]}, {"role": "tool"}],
    ):
        trajectory = Trajectory(messages=messages, observations=observations)
        edit.check(policy.propose(trajectory), trajectory.messages)


def test_every_built_in_policy_is_found_by_its_name() -> None:
    assert {name: available()[name].load() for name in BUILT_IN} == BUILT_IN
    for name, kind in BUILT_IN.items():
        assert parse(name) == kind()
        assert parse(name).name == name


def test_every_built_in_policy_tells_its_rule() -> None:
    assert all((kind.__doc__ or "").strip() for kind in BUILT_IN.values())


def test_a_pipeline_of_everything_parses() -> None:
    made = parse("stale_reads + drop_failed_calls:after=2 + truncate_older_than:n=3,max_chars=99")
    assert isinstance(made, Pipeline)
    assert made.name == "stale_reads+drop_failed_calls+truncate_older_than"
