import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, check
from leyline_agent.errors import EditError
from leyline_agent.trajectory import Trajectory


def call(*ids, content="I look.", arguments="{}"):
    calls = [
        {"id": i, "type": "function", "function": {"name": "f", "arguments": arguments}}
        for i in ids
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(call_id, content="out"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def user(content="go on"):
    return {"role": "user", "content": content}


def said(content="fine"):
    return {"role": "assistant", "content": content}


HEAD = [{"role": "system", "content": "s"}, user("task")]


def facts(trajectory):
    """Everything a policy can read off a trajectory."""
    return (
        list(trajectory.messages),
        trajectory.tool_calls,
        trajectory.tool_results,
        trajectory.pending,
        trajectory.pinned,
        trajectory.tokens(),
    )


def test_calls_and_results_are_found_and_joined():
    run = Trajectory(
        [*HEAD, call("a"), result("a", "one"), call("b", "c"), result("c"), result("b")]
    )
    assert [(c.index, c.id, c.position) for c in run.tool_calls] == [
        (2, "a", 0), (4, "b", 0), (4, "c", 1),
    ]  # fmt: skip
    assert [(r.index, r.call.id, r.name) for r in run.tool_results] == [
        (3, "a", "f"), (5, "c", "f"), (6, "b", "f"),
    ]  # fmt: skip
    assert run.tool_results[0].content == "one"
    assert run.results_of(run.tool_calls[1]) == (run.tool_results[2],)


def test_an_orphan_result_has_no_call():
    run = Trajectory([*HEAD, result("x"), call("a"), user(), result("a")])
    assert [r.call for r in run.tool_results] == [None, None]


@pytest.mark.parametrize("ids", [("same", "same"), ("", "")])
def test_calls_with_one_id_are_answered_in_order(ids):
    first, second = result(ids[0], "1"), result(ids[1], "2")
    run = Trajectory([*HEAD, call(*ids), first, second])
    assert [r.call.position for r in run.tool_results] == [0, 1]
    assert run.pending == ()


def test_ids_that_repeat_in_a_later_turn_belong_to_that_turn():
    run = Trajectory([*HEAD, call("a"), result("a"), call("a"), result("a")])
    assert [r.call.index for r in run.tool_results] == [2, 4]
    assert run.results_of(run.tool_calls[0]) == (run.tool_results[0],)


def test_a_tool_message_without_an_id_answers_the_next_open_call():
    bare = {"role": "tool", "content": "out"}
    run = Trajectory([*HEAD, call("a", "b"), bare, bare])
    assert [r.call.id for r in run.tool_results] == ["a", "b"]


def test_legacy_function_calls():
    legacy = {"role": "assistant", "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    run = Trajectory([*HEAD, legacy, {"role": "function", "name": "f", "content": "out"}])
    assert run.tool_results[0].call.arguments == {"x": 1}


@pytest.mark.parametrize(
    ("raw", "parsed", "malformed"),
    [
        ('{"x": 1}', {"x": 1}, False),
        ({"x": 1}, {"x": 1}, False),
        ("", {}, False),
        (None, {}, False),
        ("{", {}, True),
        ("[1]", {}, True),
        ([1], {}, True),
    ],
)
def test_arguments(raw, parsed, malformed):
    found = Trajectory([*HEAD, call("a", arguments=raw)]).tool_calls[0]
    assert (found.arguments, found.malformed) == (parsed, malformed)


def test_pending_calls():
    assert [c.id for c in Trajectory([*HEAD, call("a", "b"), result("a")]).pending] == ["b"]
    assert Trajectory([*HEAD, call("a"), result("a")]).pending == ()
    assert Trajectory([*HEAD, call("a"), user()]).pending == ()
    assert Trajectory([*HEAD, call("a"), said()]).pending == ()
    assert Trajectory(HEAD).pending == ()


def test_plain_text_observations():
    run = Trajectory(
        [*HEAD, said("ls"), user("a.py"), user("please hurry"), said()], observations="user"
    )
    assert [(r.index, r.content) for r in run.tool_results] == [(3, "a.py")]
    assert run.tool_results[0].call.arguments == {"text": "ls"}
    assert [c.index for c in run.pending] == [5]
    assert Trajectory(run.messages).tool_results == ()


def test_native_calls_of_a_plain_text_harness_are_not_answered_by_a_user():
    run = Trajectory([*HEAD, call("a"), user("thanks")], observations="user")
    assert run.tool_results == ()


def test_content_parts_are_read_as_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}]
    run = Trajectory([*HEAD, call("a"), result("a", parts)])
    assert run.tool_results[0].content == "ab"
    edit = run.tool_results[0].replace("stub", mode=Mode.FORGET, reason="old")
    assert edit == Edit(3, 4, (result("a", "stub"),), Mode.FORGET, "old")


def test_drop_call_takes_every_result():
    run = Trajectory([*HEAD, call("a", "b"), result("a"), result("b"), said()])
    assert run.drop_call(run.tool_calls[0], reason="failed") == Edit(2, 5, reason="failed")
    check([run.drop_call(run.tool_calls[1])], run.messages)


def test_a_trajectory_is_a_snapshot():
    messages = [*HEAD, call("a")]
    run = Trajectory(messages)
    messages.append(result("a"))
    assert len(run.messages) == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.messages = ()


def test_calls_and_results_can_be_keys():
    run = Trajectory([*HEAD, call("a", arguments={"x": 1}), result("a")])
    assert {run.tool_calls[0]: 1, run.tool_results[0]: 2}[run.tool_results[0]] == 2


def test_the_original_is_the_unedited_history():
    run = Trajectory([*HEAD, call("a"), result("a", "long")])
    assert run.original is run
    view = run.edited([run.tool_results[0].replace("stub")]).extended([said()])
    assert view.tool_results[0].content == "stub"
    assert view.original.tool_results[0].content == "long"
    assert list(view.original.messages) == [*run.messages, said()]
    assert run.extended([said()]).original.messages == run.extended([said()]).messages


def test_pins_move_with_their_message():
    run = Trajectory([*HEAD, call("a"), result("a"), user("keep this")], pinned=frozenset({1, 4}))
    assert run.edited([Edit(2, 4)]).pinned == {1, 2}
    assert run.edited([Edit(2, 2, (user(), user()))]).pinned == {1, 6}
    assert run.extended([said()]).pinned == {1, 4}


def test_replacing_a_field_parses_again():
    run = Trajectory([*HEAD, said("ls"), user("a.py")])
    assert dataclasses.replace(run, observations="user").tool_results[0].content == "a.py"


def test_tokens_count_text_and_calls():
    run = Trajectory(
        [user("x" * 40), call("a", content="y" * 20, arguments="{}")], chars_per_token=2
    )
    assert run.tokens() == round((40 + 20 + 1 + 2) / 2)
    assert run.tokens(run.messages[:1]) == 20


MESSAGE = st.one_of(
    st.sampled_from([user(), said(), user("task"), {"role": "tool", "content": "bare"}]),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(lambda ids: call(*ids)),
    st.sampled_from("abc").map(result),
)
MESSAGES = st.lists(MESSAGE, max_size=12)
OBSERVATIONS = st.sampled_from(["tool", "user"])


@given(first=MESSAGES, more=MESSAGES, observations=OBSERVATIONS)
@settings(deadline=None)
def test_extended_equals_building_from_scratch(first, more, observations):
    grown = Trajectory(first, observations=observations).extended(more)
    assert facts(grown) == facts(Trajectory([*first, *more], observations=observations))


@st.composite
def runs_with_edits(draw):
    """A run and a batch of edits that is legal on it."""
    messages = [*HEAD, *draw(MESSAGES)]
    place = st.integers(0, len(messages))
    edits = []
    for start, end, new in draw(st.lists(st.tuples(place, place, MESSAGES), max_size=3)):
        edit = Edit(min(start, end), max(start, end), tuple(new[:2]))
        try:
            check([*edits, edit], messages)
        except EditError:
            continue
        edits.append(edit)
    return messages, edits


@given(case=runs_with_edits(), more=MESSAGES, observations=OBSERVATIONS)
@settings(deadline=None)
def test_edited_equals_building_from_scratch(case, more, observations):
    messages, edits = case
    run = Trajectory(messages, observations=observations)
    view = run.edited(edits).extended(more)
    assert facts(view) == facts(Trajectory(view.messages, observations=observations))
    assert facts(view.original) == facts(Trajectory([*messages, *more], observations=observations))


@given(case=runs_with_edits())
@settings(deadline=None)
def test_pins_still_name_the_same_message(case):
    messages, edits = case
    free = [i for i in range(len(messages)) if not any(e.start <= i < e.end for e in edits)]
    run = Trajectory(messages, pinned=frozenset(free))
    view = run.edited(edits)
    assert [view.messages[i] for i in sorted(view.pinned)] == [messages[i] for i in free]


def test_extending_parses_only_what_is_new():
    turns = [m for n in range(100) for m in (call(f"c{n}"), result(f"c{n}", "y" * 2000))]
    view = Trajectory([*HEAD, *turns])
    view = view.edited([view.tool_results[10].replace("stub")])
    grown = view.extended([call("new"), result("new")])
    assert all(new is old for new, old in zip(grown._records, view._records, strict=False))
    assert all(
        new is old
        for new, old in zip(grown.original._records, view.original._records, strict=False)
    )
