from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    available,
    parse,
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
    class KeepHTTPLogs2(Policy):
        pass

    assert KeepHTTPLogs2().name == "keep_httplogs2"
    assert Stubs().name == "stubs"


def test_a_policy_without_a_rule_says_so(trajectory: Trajectory) -> None:
    with pytest.raises(NotImplementedError, match="Policy must implement edits"):
        Policy().propose(trajectory)


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
    class Needs(Policy):
        n: int

    with pytest.raises(PolicyError, match=r"'Needs': n: Field required; options: mode, n"):
        as_policy(Needs)


# --- text ----------------------------------------------------------------------------------------


def test_options_are_parsed_from_text() -> None:
    made = parse(" truncate_older_than : n = 3 , max_chars=50, mode=forget ")
    assert (made.name, made.mode) == ("truncate_older_than", Mode.FORGET)
    assert made.model_dump(mode="json") == {"mode": "forget", "n": 3, "max_chars": 50}


def test_several_policies_are_joined_by_plus() -> None:
    made = parse("keep_all + keep_last:n=3")
    assert isinstance(made, Pipeline)
    assert [part.name for part in made.policies] == ["keep_all", "keep_last"]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", "empty policy"),
        ("keep_all+", "empty policy"),
        ("keep_lost", "no policy named 'keep_lost'; did you mean 'keep_last'"),
        ("xyzzy", "no policy named 'xyzzy'; installed: .*keep_all"),
        ("keep_last:n", "'n' is not key=value"),
        ("keep_last:=3", "'=3' is not key=value"),
        ("keep_last:n=three", "n: Input should be a valid integer"),
        ("keep_last:n=-1", "n: Input should be greater than or equal to 0"),
        ("keep_last:pooling=2", "pooling: .*did you mean 'polling'"),
        ("keep_last:qqq=2", "qqq: Extra inputs are not permitted; options: mode, n, polling"),
        ("keep_last:mode=never", "mode: Input should be 'amortize', 'repair' or 'forget'"),
    ],
)
def test_text_that_is_no_policy(spec: str, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        parse(spec)


# --- policies of other packages ------------------------------------------------------------------

PACKAGE = """
from collections.abc import Iterator
from leyline_agent.edit import Edit
from leyline_agent.policy import Policy, policy

class Listed(Policy):
    names: list[str] = []
    one: str = ""
    def edits(self, trajectory): return []

@policy
def made(trajectory): return []

def plain(trajectory): return []

NOT_A_POLICY = 3
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution that offers policies, good and bad."""
    (tmp_path / "theirs_module.py").write_text(PACKAGE)
    (tmp_path / "broken_module.py").write_text("import no_such_package_at_all\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    offers = {
        "listed": "theirs_module:Listed",
        "made": "theirs_module:made",
        "plain": "theirs_module:plain",
        "three": "theirs_module:NOT_A_POLICY",
        "gone": "theirs_module:Gone",
        "broken": "broken_module:Anything",
    }
    lines = "\n".join(f"{name} = {value}" for name, value in offers.items())
    (info / "entry_points.txt").write_text(f"[leyline.policies]\n{lines}\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
class TestInstalled:
    def test_they_are_found_by_name_and_not_imported(self) -> None:
        assert {"listed", "broken", "keep_all"} <= set(available())

    def test_lists_are_written_with_bars(self) -> None:
        made = parse("listed:names=a|b,one=c|d")
        assert made.model_dump()["names"] == ["a", "b"]
        assert made.model_dump()["one"] == "c|d"
        assert parse("listed:names=a").model_dump()["names"] == ["a"]

    @pytest.mark.parametrize("name", ["made", "plain"])
    def test_functions_are_policies_without_options(self, name: str) -> None:
        assert parse(name).name == name
        with pytest.raises(PolicyError, match="is made of a function and takes no options"):
            parse(f"{name}:n=3")

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("three", "entry point 'three' .* is 3, not a policy"),
            ("gone", "policy 'gone' cannot be imported from 'theirs_module:Gone'"),
            ("broken", "policy 'broken' cannot be imported .*no_such_package_at_all"),
        ],
    )
    def test_bad_ones_are_named(self, name: str, problem: str) -> None:
        with pytest.raises(PolicyError, match=problem):
            parse(name)
