"""Messages that fit no schema: a session takes what a client would, and policies survive it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent import Session, TrajectoryError
from leyline_agent.signals import failures, stale
from leyline_agent.testing import MockAdapter
from leyline_agent.trajectory import Trajectory

POLICIES = "stale_reads+drop_failed_calls+truncate_older_than:n=1,max_chars=9+keep_last:n=1"

scalars = st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=5)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
functions = st.fixed_dictionaries({}, optional={"name": anything, "arguments": anything})
calls = st.fixed_dictionaries(
    {}, optional={"id": st.sampled_from(["a", "b"]) | anything, "function": functions | anything}
)
parts = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["text", "image_url", "hologram"]), "text": anything}
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function", "critic", ""])},
    optional={
        "content": st.just("a long text " * 9) | st.lists(parts | anything, max_size=2) | anything,
        "tool_calls": st.lists(calls | anything, max_size=2) | anything,
        "tool_call_id": st.sampled_from(["a", "b"]) | anything,
        "function_call": functions | anything,
        "name": anything,
    },
)


@settings(deadline=None, max_examples=150)
@given(st.lists(messages, min_size=1, max_size=8), st.sampled_from(["tool", "user"]))
def test_nothing_of_a_message_s_shape_stops_a_turn(conversation, observations):
    session = Session(POLICIES, MockAdapter(), observations=observations)
    for end in range(1, len(conversation) + 1):
        turn = session.begin(conversation[:end])
        assert len(turn.request["messages"]) == end
        turn.finish("fine")
    assert [s for s in session.skipped if s.policy] == []
    failures(turn.trajectory)
    stale(turn.trajectory)


@settings(deadline=None)
@given(st.lists(messages, min_size=1, max_size=8))
def test_trajectories_are_built_of_anything_with_a_role(conversation):
    for observations in ("tool", "user"):
        trajectory = Trajectory(conversation, observations=observations)
        assert trajectory.chars >= 0
        assert all(isinstance(call.arguments, dict) for call in trajectory.tool_calls)
        assert all(isinstance(r.content + r.name, str) for r in trajectory.tool_results)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "no messages; a turn needs at least one"),
        ("text", "the messages are a str; pass a list of them"),
        ({"role": "user"}, "the messages are a dict"),
        (None, "the messages are a NoneType"),
        (["text"], "message 0 is a str; pass dictionaries"),
        ([{"content": "x"}], "message 0 has no role"),
        ([{"role": 3, "content": "x"}], "message 0 has no role"),
    ],
)
def test_what_is_no_conversation_is_refused(given, problem):
    session = Session()
    session.begin([{"role": "user", "content": "task"}]).finish("fine")
    with pytest.raises(TrajectoryError, match=problem):
        session.begin(given)
    assert (session.version, session.is_idle) == (1, True)


def call(id, function="bash"):
    made = {"id": id, "function": {"name": function, "arguments": "{}"}}
    return {"role": "assistant", "tool_calls": [made]}


def result(id, content="out"):
    return {"role": "tool", "tool_call_id": id, "content": content}


TASK = {"role": "user", "content": "task"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


@pytest.mark.parametrize(
    ("conversation", "told"),
    [
        ([TASK, call("a"), result("a"), {"role": "assistant", "content": "fine"}], []),
        ([TASK, call("a"), result("a", [{"type": "text", "text": "x"}, IMAGE, "y"])], []),
        ([TASK, call("a")], []),
        ([TASK, {"role": "assistant", "function_call": {"name": "f"}}], []),
        ([TASK, {"role": "assistant", "tool_calls": [{"custom": {"name": "f"}}]}], []),
        ([TASK, result("a")], [(1, "OrphanResult")]),
        ([TASK, call("a"), result("a"), result("a")], [(3, "OrphanResult")]),
        ([TASK, call("a"), TASK], [(1, "UnansweredCall")]),
        ([TASK, call("a"), result("b")], [(2, "OrphanResult")]),
        ([TASK, call("a"), result("b"), TASK], [(2, "OrphanResult"), (1, "UnansweredCall")]),
        ([TASK, {"role": "critic", "content": "x"}], [(1, "UnknownRole")]),
        ([{"role": "user", "content": [{"type": "tool_result"}]}], [(0, "UnknownContent")]),
        ([{"role": "user", "content": [3]}], [(0, "UnknownContent")]),
        ([{"role": "user", "content": 3}], [(0, "UnknownContent")]),
        ([TASK, {"role": "assistant", "tool_calls": ["a"]}], [(1, "UnknownCall")]),
        ([TASK, {"role": "assistant", "tool_calls": 3}], [(1, "UnknownCall")]),
        ([TASK, call("a", "")], [(1, "UnknownCall")]),
    ],
)
def test_what_policies_make_little_of_is_told(conversation, told, caplog):
    session = Session(POLICIES)
    turn = session.begin(conversation)
    assert turn.request["messages"] == conversation
    assert [(odd.index, odd.kind) for odd in turn.trajectory.oddities] == told
    turn.finish("fine")
    assert set(told) <= {(odd.index, odd.kind) for odd in session.oddities}
    assert [f"message {index}: {kind}: " in caplog.text for index, kind in told] == [True] * len(
        told
    )
    assert len(caplog.records) == len(told)


def test_each_oddity_is_told_when_it_comes_and_each_kind_is_a_warning_once(caplog):
    session = Session()
    conversation = [TASK]
    for number in range(3):
        conversation += [{"role": "critic", "content": str(number)}, call(f"c{number}")]
        session.begin(conversation).finish("fine")
        conversation.append({"role": "assistant", "content": "fine"})
    told = [record.getMessage().split(": ")[:2] for record in caplog.records]
    assert told == [["message 1", "UnknownRole"], ["message 2", "UnansweredCall"]]
    kinds = [odd.kind for odd in session.oddities]
    assert sorted(kinds) == ["UnansweredCall"] * 3 + ["UnknownRole"] * 3


def test_edits_beside_oddities_are_taken_and_pairs_stay_whole():
    long = "line\n" * 99
    conversation = [TASK, result("lost", long), call("a"), result("a", long), call("b")]
    session = Session("keep_last:n=0")
    turn = session.begin(conversation)
    assert [edit.start for edit in turn.edits] == [1, 3]
    assert turn.skipped == ()
