import pytest

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, apply, check, protected_indices
from leyline_agent.errors import (
    BrokenToolPair,
    EditError,
    InvalidSpan,
    OverlappingSpans,
    PinnedMessage,
    UnsupportedMode,
)


def call(*ids, content="I look."):
    calls = [
        {"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in ids
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(call_id, content="out"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def user(content="go on"):
    return {"role": "user", "content": content}


SYSTEM = {"role": "system", "content": "s"}
RUN = [SYSTEM, user("task"), call("a"), result("a"), call("b", "c"), result("b"), result("c")]


def test_apply_uses_the_indices_of_one_view():
    edits = [Edit(5, 6, (result("b", "B"),)), Edit(2, 4), Edit(2, 2, (user("new"),))]
    assert apply(check(edits, RUN), RUN) == [
        SYSTEM, user("task"), user("new"), call("b", "c"), result("b", "B"), result("c"),
    ]  # fmt: skip


def test_check_sorts_and_accepts_touching_edits():
    edits = [Edit(4, 7), Edit(2, 4)]
    assert check(edits, RUN) == (Edit(2, 4), Edit(4, 7))


def test_nothing_is_legal():
    assert check([], RUN) == ()
    assert apply([], RUN) == RUN


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (3, 8), (8, 9)])
def test_a_span_outside_the_view(span):
    with pytest.raises(InvalidSpan, match="view of 7 messages"):
        check([Edit(*span, (user(),))], RUN)


def test_an_edit_that_changes_nothing():
    with pytest.raises(InvalidSpan, match="inserts nothing"):
        check([Edit(3, 3)], RUN)


@pytest.mark.parametrize(
    ("left", "right"), [((2, 4), (3, 4)), ((2, 4), (2, 4)), ((4, 7), (5, 5)), ((7, 7), (7, 7))]
)
def test_overlapping_edits(left, right):
    with pytest.raises(OverlappingSpans, match=rf"\[{left[0]}, {left[1]}\)"):
        check([Edit(*right, (user(),)), Edit(*left, (user(),))], RUN)


@pytest.mark.parametrize(("index", "kind"), [(0, "system"), (1, "task")])
def test_system_prompt_and_task_are_protected(index, kind):
    edit = Edit(index, index + 1, (user("changed"),))
    with pytest.raises(PinnedMessage, match=f"the {kind} message"):
        check([edit], RUN)
    check([Edit(index, index + 1, (user("changed"),), may_edit=frozenset({kind}))], RUN)


def test_pins_hold_whatever_the_edit_may():
    edit = Edit(3, 4, (result("a", "stub"),), may_edit=frozenset({"system", "task"}))
    with pytest.raises(PinnedMessage, match="message 3, which is pinned"):
        check([edit], RUN, pinned={3})


def test_the_task_is_the_first_user_message_even_behind_a_greeting():
    greeting = {"role": "assistant", "content": "How can I help?"}
    assert protected_indices([greeting, user("task"), user()]) == {1: "task"}
    developer = {"role": "developer", "content": "d"}
    assert protected_indices([SYSTEM, developer, greeting, user("task"), SYSTEM]) == {
        0: "system", 1: "system", 3: "task",
    }  # fmt: skip


@pytest.mark.parametrize(
    "edit",
    [
        Edit(2, 3),  # the call goes, its result stays
        Edit(3, 4),  # the result goes, its call stays
        Edit(6, 7),  # one result of a parallel set, at the view's end
        Edit(5, 6, (user(),)),  # a user message in a result's place
        Edit(5, 5, (user(),)),  # something between a call and its results
        Edit(3, 4, (result("z"),)),  # another call's result
        Edit(4, 5, (call("b"),)),  # one call of two goes, both results stay
    ],
)
def test_a_pair_is_never_broken(edit):
    with pytest.raises(BrokenToolPair, match="edit a call and its results together"):
        check([edit], RUN)


@pytest.mark.parametrize(
    "edit",
    [
        Edit(2, 4),
        Edit(4, 7),
        Edit(5, 6, (result("b", "stub"),)),
        Edit(6, 7, (result("c", "stub"),)),
        Edit(2, 7, (user("summary"),)),
        Edit(4, 7, (call("b"), result("b"))),
    ],
)
def test_whole_pairs_and_in_place_edits_are_legal(edit):
    check([edit], RUN)


def test_two_edits_may_take_a_pair_together():
    check([Edit(2, 3), Edit(3, 4)], RUN)


def test_a_running_call_does_not_forbid_other_edits_but_stays_last():
    running = [*RUN, call("d")]
    check([Edit(3, 4, (result("a", "stub"),))], running)
    with pytest.raises(BrokenToolPair, match="'d'"):
        check([Edit(8, 8, (user(),))], running)


def test_a_history_that_was_broken_before_can_still_be_edited():
    broken = [SYSTEM, user("task"), call("lost"), user(), result("stray"), call("a"), result("a")]
    check([Edit(6, 7, (result("a", "stub"),))], broken)
    with pytest.raises(BrokenToolPair):
        check([Edit(6, 7)], broken)


def test_repeated_ids_are_told_apart_by_turn():
    again = [SYSTEM, user("task"), call("a"), result("a"), call("a"), result("a")]
    check([Edit(2, 4)], again)
    with pytest.raises(BrokenToolPair):
        check([Edit(3, 4)], again)


def test_legacy_function_calls_are_pairs_too():
    legacy = [
        user("task"),
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "out"},
        user(),
    ]
    check([Edit(1, 3)], legacy)
    for edit in (Edit(1, 2), Edit(2, 3)):
        with pytest.raises(BrokenToolPair):
            check([edit], legacy)


def test_effective_mode():
    assert Edit(0, 1).effective_mode() is Mode.REPAIR
    assert Edit(0, 1, mode=Mode.AMORTIZE).effective_mode() is Mode.AMORTIZE
    assert Edit(0, 1, mode=Mode.AMORTIZE, redact=True).effective_mode() is Mode.FORGET
    assert Edit(0, 1).effective_mode(Mode.FORGET) is Mode.FORGET


def test_count_delta_and_text():
    edit = Edit(2, 4, (user(),), reason="why")
    assert edit.count_delta == -1
    assert str(Edit(2, 4, policy="p")) == "p: messages [2, 4)"


@pytest.mark.parametrize(
    ("left", "right", "overlap"),
    [
        ((2, 4), (3, 5), True),
        ((2, 4), (4, 5), False),
        ((2, 2), (2, 2), True),
        ((2, 2), (2, 4), False),
        ((3, 3), (2, 4), True),
        ((4, 4), (2, 4), False),
    ],
)
def test_overlaps(left, right, overlap):
    assert Edit(*left).overlaps(Edit(*right)) is overlap
    assert Edit(*right).overlaps(Edit(*left)) is overlap


def test_a_mode_by_name_is_that_mode():
    assert Edit(2, 3, mode="forget").mode is Mode.FORGET
    with pytest.raises(UnsupportedMode, match="'amortise'; the modes are amortize, repair, forget"):
        Edit(2, 3, mode="amortise")


@pytest.mark.parametrize("kinds", ["system", ["system"], ("system",), {"system"}])
def test_what_may_be_edited_in_any_collection(kinds):
    assert Edit(0, 1, may_edit=kinds).may_edit == {"system"}


@pytest.mark.parametrize("kinds", ["sytem", ["system", "tools"], 3])
def test_what_may_be_edited_is_checked(kinds):
    with pytest.raises(EditError, match="may_edit takes 'system' and 'task', not"):
        Edit(0, 1, may_edit=kinds)
