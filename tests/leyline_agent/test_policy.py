from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent import Ask, LeylineWarning, Session
from leyline_agent import edit as edit_module
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, Protected
from leyline_agent.errors import PolicyError
from leyline_agent.policy import (
    FunctionPolicy,
    Pipeline,
    Policy,
    TransformPolicy,
    as_policy,
    policy,
    transform,
)
from leyline_agent.trajectory import Trajectory

Message = dict[str, Any]


def assistant(call_id: str, text: str = "") -> Message:
    call = {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    return {"role": "assistant", "content": text, "tool_calls": [call]}


def tool(call_id: str, text: str = "output") -> Message:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


HISTORY: list[Message] = [
    {"role": "system", "content": "be good"},
    {"role": "user", "content": "task"},
    assistant("a"),
    tool("a"),
    assistant("b"),
    tool("b"),
]


@pytest.fixture
def trajectory() -> Trajectory:
    return Trajectory(messages=HISTORY)


def stub(index: int, text: str = "x") -> Edit:
    return Edit(index, index + 1, ({**HISTORY[index], "content": text},))


class Stubs(Policy):
    """Stub the results at `places`."""

    places: tuple[int, ...] = (3,)
    text: str = "x"

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        for place in self.places:
            yield stub(place, self.text)


# --- subclasses ----------------------------------------------------------------------------------


def test_edits_are_signed_with_name_and_mode(trajectory: Trajectory) -> None:
    (edit,) = Stubs(mode=Mode.FORGET).propose(trajectory)
    assert (edit.policy, edit.reason, edit.mode) == ("stubs", "stubs", Mode.FORGET)
    assert Stubs().propose(trajectory)[0].mode is Mode.REPAIR


def test_an_edit_keeps_what_it_says_itself(trajectory: Trajectory) -> None:
    @policy
    def own(trajectory: Trajectory) -> Iterator[Edit]:
        yield Edit(3, 4, (tool("a", "x"),), Mode.AMORTIZE, "why", "who", redact=True)

    (edit,) = own.propose(trajectory)
    assert (edit.policy, edit.reason, edit.mode, edit.redact) == ("who", "why", Mode.AMORTIZE, True)


def test_permissions_are_the_policy_s(trajectory: Trajectory) -> None:
    class Rewrites(Policy):
        may_edit: ClassVar[frozenset[Protected]] = frozenset({"system"})

        def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
            yield stub(0)

    edit_module.check(Rewrites().propose(trajectory), HISTORY)


def test_names_are_the_class_in_snake_case() -> None:
    class KeepHTTPLogs2(Stubs):
        pass

    assert KeepHTTPLogs2().name == "keep_httplogs2"
    assert Stubs().name == "stubs"


def test_a_policy_without_a_rule_cannot_be_made() -> None:
    class Between(Policy):
        n: int = 1

    class Rule(Between):
        def edits(self, trajectory: Trajectory) -> list[Edit]:
            return []

    assert Rule().name == "rule"
    with pytest.raises(TypeError, match="abstract class Between with abstract method edits"):
        Between()  # type: ignore[abstract]
    with pytest.raises(PolicyError, match=r"Between has no rule; give it `def edits\(self, traj"):
        as_policy(Between)


def test_a_rule_that_cannot_be_called_is_told_where_it_is_defined() -> None:
    with pytest.raises(PolicyError, match=r"A.edits\(\) takes other .* def edits\(self, traj"):

        class A(Policy):
            def edits(self) -> list[Edit]:  # type: ignore[override]
                return []

    with pytest.raises(PolicyError, match="B.edits is asynchronous"):

        class B(Policy):
            async def edits(self, trajectory: Trajectory) -> list[Edit]:  # type: ignore[override]
                return []

    class C(Policy):
        @staticmethod
        def edits(trajectory: Trajectory) -> list[Edit]:  # type: ignore[override]
            return []

    assert C().propose(Trajectory(messages=HISTORY)) == []


def test_functions_that_cannot_be_called_are_told_at_once() -> None:
    with pytest.raises(PolicyError, match=r"mine\(messages, turn\) takes other .*@transform"):

        @policy
        def mine(messages: Any, turn: int) -> list[Edit]:
            return []

    with pytest.raises(PolicyError, match=r"write def yours\(messages, turn\)"):

        @transform
        def yours(messages: list[Message]) -> list[Message]:
            return messages

    with pytest.raises(PolicyError, match="takes other arguments"):
        as_policy(lambda: [])
    assert policy(print).name == "print"  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [None, 3, stub(3)])
def test_giving_no_list_of_edits(trajectory: Trajectory, given: object) -> None:
    made = FunctionPolicy(function=lambda trajectory: given, label="mine")
    with pytest.raises(PolicyError, match="policy mine gave .*must yield Edit objects"):
        made.propose(trajectory)


def test_yielding_something_else_than_edits(trajectory: Trajectory) -> None:
    made = FunctionPolicy(function=lambda trajectory: [stub(3), "drop it"])
    with pytest.raises(PolicyError, match="'drop it'; it must yield Edit objects"):
        made.propose(trajectory)


# --- pipelines -----------------------------------------------------------------------------------


def test_earlier_parts_have_precedence(trajectory: Trajectory) -> None:
    made = Pipeline(policies=(Stubs(text="first"), Stubs(places=(3, 5), text="second")))
    edits = made.propose(trajectory)
    assert [(e.start, e.replacement[0]["content"]) for e in edits] == [(3, "first"), (5, "second")]
    assert made.name == "stubs+stubs"


def test_overlapping_edits_wait(trajectory: Trajectory) -> None:
    pair = FunctionPolicy(function=lambda trajectory: [Edit(2, 4)], label="drop")
    insertion = FunctionPolicy(function=lambda t: [Edit(4, 4, ({"role": "user", "content": "!"},))])
    made = Pipeline(policies=(pair, Stubs(), insertion, insertion, Stubs(places=(5,))))
    assert [(e.start, e.end) for e in made.propose(trajectory)] == [(2, 4), (4, 4), (5, 6)]
    edit_module.check(made.propose(trajectory), HISTORY)


def test_redactions_are_taken_before_what_earlier_parts_want(trajectory: Trajectory) -> None:
    @policy
    def redact(trajectory: Trajectory) -> Iterator[Edit]:
        yield Edit(3, 4, (tool("a", "gone"),), redact=True)

    taken = Pipeline(policies=(Stubs(places=(3, 5)), redact)).propose(trajectory)
    assert [(edit.start, edit.policy) for edit in taken] == [(3, "redact"), (5, "stubs")]
    turn = Session(Pipeline(policies=(Stubs(places=(3, 5)), redact))).begin(HISTORY)
    assert [(edit.start, edit.policy) for edit in turn.edits] == [(3, "redact"), (5, "stubs")]


def test_redactions_are_taken_before_what_the_harness_declares() -> None:
    @policy
    def redact(trajectory: Trajectory) -> Iterator[Edit]:
        yield Edit(3, 4, (tool("a", "gone"),), redact=True)

    session = Session(redact)
    session.edit(stub(3))
    with pytest.warns(LeylineWarning, match="harness: .*OverlappingSpans"):
        turn = session.begin(HISTORY)
    assert [edit.policy for edit in turn.edits] == ["redact"]


def test_questions_are_signed_and_no_edits(trajectory: Trajectory) -> None:
    @policy
    def curious(trajectory: Trajectory) -> Iterator[Edit | Ask]:
        yield Ask("key", ({"role": "user", "content": "Why?"},))
        yield stub(3)

    both = Pipeline(policies=(curious, Stubs(places=(3, 5))))
    assert [edit.start for edit in both.propose(trajectory)] == [3, 5]
    (ask,) = (want for want in both.wants(trajectory) if isinstance(want, Ask))
    assert (ask.policy, ask.key) == ("curious", "key")


def test_pipelines_nest_and_keep_each_part_s_mode(trajectory: Trajectory) -> None:
    inner = Pipeline(policies=(Stubs(mode=Mode.FORGET),))
    made = Pipeline(policies=(inner, Stubs(places=(5,))))
    assert [e.mode for e in made.propose(trajectory)] == [Mode.FORGET, Mode.REPAIR]
    assert made.edits(trajectory) == made.propose(trajectory)


def test_an_empty_pipeline_edits_nothing(trajectory: Trajectory) -> None:
    assert Pipeline().propose(trajectory) == []
    assert Pipeline().name == "pipeline"


# --- functions -----------------------------------------------------------------------------------


def test_a_decorated_function_is_a_policy(trajectory: Trajectory) -> None:
    @policy(mode=Mode.FORGET, name="forgetful")
    def anything(trajectory: Trajectory) -> Iterator[Edit]:
        yield stub(3)

    (edit,) = anything.propose(trajectory)
    assert (edit.policy, edit.mode) == ("forgetful", Mode.FORGET)


def changed(
    function: Callable[[list[Message], int], Any], messages: Sequence[Message]
) -> list[Edit]:
    return TransformPolicy(function=function).propose(Trajectory(messages=messages))


def test_a_changed_message_is_one_edit_in_place() -> None:
    def shorten(messages: list[Message], turn: int) -> list[Message]:
        messages[3]["content"] = f"gone by turn {turn}"
        return messages

    (edit,) = changed(shorten, HISTORY)
    assert (edit.start, edit.end) == (3, 4)
    assert edit.replacement == (tool("a", "gone by turn 2"),)
    assert HISTORY[3]["content"] == "output"


def test_a_dropped_pair_is_one_edit() -> None:
    (edit,) = changed(lambda messages, turn: messages[:2] + messages[4:], HISTORY)
    assert (edit.start, edit.end, edit.replacement) == (2, 4, ())


def test_dropping_and_changing_are_told_apart() -> None:
    def both(messages: list[Message], turn: int) -> list[Message]:
        return [*messages[:2], assistant("b", "rewritten"), tool("b", "rewritten")]

    edits = changed(both, HISTORY)
    assert [(e.start, e.end, len(e.replacement)) for e in edits] == [
        (2, 4, 0),
        (4, 5, 1),
        (5, 6, 1),
    ]


def test_an_inserted_message_is_an_insertion() -> None:
    note = {"role": "user", "content": "remember"}
    (edit,) = changed(lambda messages, turn: [*messages[:4], note, *messages[4:]], HISTORY)
    assert (edit.start, edit.end, edit.replacement) == (4, 4, (note,))


def test_an_unchanged_list_is_no_edit() -> None:
    assert changed(lambda messages, turn: messages, HISTORY) == []
    cached = [{**m, "cache_control": {"type": "ephemeral"}} for m in HISTORY]
    assert changed(lambda messages, turn: cached, HISTORY) == []


def test_a_decorated_transform_is_a_policy(trajectory: Trajectory) -> None:
    @transform(mode=Mode.FORGET)
    def drop_last(messages: list[Message], turn: int) -> list[Message]:
        return messages[:-2]

    @transform
    def keep(messages: list[Message], turn: int) -> list[Message]:
        return messages

    (edit,) = drop_last.propose(trajectory)
    assert (edit.policy, edit.mode, edit.start) == ("drop_last", Mode.FORGET, 4)
    assert keep.propose(trajectory) == []


@pytest.mark.parametrize("returned", [None, "text", 3, ["text"], {"role": "user"}])
def test_a_transform_that_returns_no_messages(returned: object) -> None:
    with pytest.raises(PolicyError, match="must return the list of messages"):
        changed(lambda messages, turn: returned, HISTORY)


@st.composite
def rewrites(draw: st.DrawFn) -> tuple[list[Message], list[Message]]:
    """A history of call-result pairs and one with pairs dropped, shortened and notes put in."""
    before, after = list(HISTORY[:2]), list(HISTORY[:2])
    for number in range(draw(st.integers(0, 8))):
        output = draw(st.sampled_from(["same", "same", "other"]))
        pair = [assistant(f"c{number}"), tool(f"c{number}", output)]
        before += pair
        what = draw(st.sampled_from(["keep", "keep", "drop", "shorten", "note"]))
        if what == "note":
            after.append({"role": "user", "content": "note"})
        if what == "shorten":
            pair = [pair[0], tool(f"c{number}", "stub")]
        if what != "drop":
            after += pair
    return before, after


@settings(deadline=None)
@given(rewrites())
def test_a_diff_gives_the_transform_s_output_and_tears_no_pair(
    case: tuple[list[Message], list[Message]],
) -> None:
    before, after = case
    edits = changed(lambda messages, turn: after, before)
    assert edit_module.apply(edit_module.check(edits, before), before) == after
    for edit in edits:
        edit_module.check([edit], before)


# --- whatever users pass -------------------------------------------------------------------------


def test_what_a_policy_can_be_made_of() -> None:
    def rule(trajectory: Trajectory) -> list[Edit]:
        return []

    made = Stubs()
    assert as_policy(made) is made
    assert as_policy(Stubs) == made
    assert as_policy("keep_all").name == "keep_all"
    assert as_policy(rule).name == "rule"
    assert as_policy([made]) is made
    assert as_policy((made, "keep_all", rule)).name == "stubs+keep_all+rule"
    assert as_policy([]) == Pipeline()


@pytest.mark.parametrize("value", [None, 3, {"n": 2}, int, [3]])
def test_what_it_cannot_be_made_of(value: Any) -> None:
    with pytest.raises(PolicyError, match="cannot make a policy of"):
        as_policy(value)


def test_a_class_that_needs_options_says_which() -> None:
    class Needs(Stubs):
        n: int

    with pytest.raises(
        PolicyError, match="policy needs: option 'n' is missing; it must be a whole"
    ):
        as_policy(Needs)
