"""Policies as text: parsed from it, written as it, and told what is wrong with their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import PolicyError
from leyline_agent.options import is_one_part, split
from leyline_agent.policy import Pipeline, Policy, as_policy, available, parse, policy
from leyline_agent.trajectory import Trajectory
from leyline_policies.keep_last import KeepLast


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Many(Policy):
    """One option of each kind."""

    places: tuple[int, ...] = (3,)
    text: str = "x"
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    on: bool = False
    colour: Colour = Colour.RED
    size: Literal["s", "m"] = "s"
    most: int | None = None
    words: dict[str, int] = {}
    code: Annotated[str, Field(pattern="^[a-z]$")] = "a"
    even: int = 2

    @field_validator("even")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        yield from ()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"places": 3}, "places must be a list, each a whole number, not 3"),
        ({"places": ["x"]}, "places must be a list, each a whole number, not 'x'"),
        ({"text": 3}, "text must be text, not 3"),
        ({"share": 1}, "share must be a number, more than 0, less than 1, not 1"),
        ({"on": "perhaps"}, "on must be true or false, not 'perhaps'"),
        ({"colour": "green"}, "colour must be one of red, blue, not 'green'"),
        ({"size": "l"}, "size must be one of s, m, not 'l'"),
        ({"most": "x"}, "most must be a whole number or None, not 'x'"),
        ({"words": 3}, "words must be a dictionary, not 3"),
        ({"code": "ab"}, "code: String should match pattern"),
        ({"even": 3}, "even: must be even"),
        ({"place": 3}, "no option 'place'; did you mean 'places'"),
    ],
)
def test_what_an_option_takes_is_told_in_words(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError, match=f"^policy many: {re.escape(problem)}"):
        Many(**given)


def test_options_are_parsed_from_text() -> None:
    made = parse(" truncate_older_than : n = 3 , max_chars=50, mode=forget ")
    assert (made.name, made.mode) == ("truncate_older_than", Mode.FORGET)
    assert made.model_dump(mode="json") == {"mode": "forget", "n": 3, "max_chars": 50}


def test_several_policies_are_joined_by_plus() -> None:
    made = parse("keep_all + keep_last:n=3")
    assert isinstance(made, Pipeline)
    assert [part.name for part in made.policies] == ["keep_all", "keep_last"]


class Around(Policy):
    """A policy with a policy in it."""

    policy: Annotated[SerializeAsAny[Policy], BeforeValidator(as_policy)]

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        yield from self.policy.propose(trajectory)


def test_brackets_hold_a_policy_inside_a_policy() -> None:
    made = Around(policy="keep_last:n=3,exclude_tools=a|b + keep_all")
    assert str(made) == "around:policy=(keep_last:n=3,exclude_tools=a|b+keep_all)"
    assert str(Around(policy=Many(text="a,b"))) == """around(policy="many(text='a,b')")"""
    assert parse("(keep_last:n=3)") == KeepLast(n=3)
    assert parse("keep_all+(keep_last+keep_all)").name == "keep_all+keep_last+keep_all"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a+b", ["a", "b"]),
        ("a:p=(b+c)+d", ["a:p=(b+c)", "d"]),
        ("a:p=(b:p=(c+d)+e)", ["a:p=(b:p=(c+d)+e)"]),
        ("", [""]),
        ("a:t=(+b", ["a:t=(", "b"]),
        ("a:t=)+b:t=(", ["a:t=)", "b:t=("]),
    ],
)
def test_text_is_split_outside_of_brackets(text: str, parts: list[str]) -> None:
    assert split(text, "+") == parts


@given(st.lists(st.text(alphabet="()+a", max_size=6), min_size=1, max_size=4))
def test_parts_that_stand_alone_stay_apart_when_joined(parts: list[str]) -> None:
    whole = [part for part in parts if is_one_part(part)] or ["a"]
    assert split("+".join(whole), "+") == whole


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("", "empty policy"),
        ("keep_all+", "empty policy"),
        ("keep_lost", "no policy named 'keep_lost'; did you mean 'keep_last'"),
        ("xyzzy", "no policy named 'xyzzy'; installed: .*keep_all"),
        ("keep_last:n", "'n' is not key=value"),
        ("keep_last:=3", "'=3' is not key=value"),
        ("keep_last:n=three", "keep_last: n must be a whole number, at least 0, not 'three'"),
        ("keep_last:n=-1", "keep_last: n must be a whole number, at least 0, not '-1'"),
        ("keep_last:pooling=2", "keep_last: no option 'pooling'; did you mean 'polling'"),
        ("keep_last:qqq=2", "keep_last: no option 'qqq'; options: mode, n, polling"),
        ("keep_last:mode=never", "mode must be one of amortize, repair, forget, not 'never'"),
        ("keep_all+keep_last:n=x,m=3", "n must be .* not 'x'; no option 'm'"),
    ],
)
def test_text_that_is_no_policy(spec: str, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        parse(spec)


def test_a_policy_as_text() -> None:
    assert str(Many()) == "many"
    assert str(Many(places=(1, 2), mode=Mode.FORGET)) == "many:mode=forget,places=1|2"
    assert str(Many(text="a,b")) == "many(text='a,b')"
    assert str(Many(on=True, colour=Colour.BLUE)) == "many:on=true,colour=blue"
    assert str(Many(words={"a": 1})) == "many(words={'a': 1})"
    assert str(parse("keep_last:n=5")) == "keep_last"
    assert str(parse("keep_all + keep_last : n=3")) == "keep_all+keep_last:n=3"
    made = policy(lambda trajectory: [], mode=Mode.FORGET, name="mine")
    assert str(made) == "mine(mode='forget')"
    assert str(Pipeline()) == "pipeline"
    assert str(KeepLast(placeholder="(gone")) == "keep_last(placeholder='(gone')"
    assert str(KeepLast(placeholder="(gone)")) == "keep_last:placeholder=(gone)"


@settings(deadline=None)
@given(
    st.integers(0, 9),
    st.lists(st.text(max_size=3), max_size=3),
    st.text(alphabet="a,+|=: 'b", max_size=4),
    st.sampled_from(Mode),
)
def test_text_makes_the_same_policy_again(n: int, names: list[str], text: str, mode: Mode) -> None:
    made = KeepLast(n=n, exclude_tools=tuple(names), placeholder=text, mode=mode)
    told = str(made)
    values = ("|".join(names), text)
    # Brackets that do not match are left to the test of `is_one_part`.
    unwritable = re.search("[,+()]", "".join(values)) or any("|" in name for name in names)
    if told.startswith("keep_last("):
        assert unwritable or any(value != value.strip() for value in values)
    else:
        assert parse(told) == made


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


def test_an_option_without_a_type_is_told_where_it_is_defined() -> None:
    told = r"Last.n has no type: write `n: int = ...` for an option, `n: ClassVar = ...` for what"
    with pytest.raises(PolicyError, match=told):

        class Last(Policy):
            n = 3

    with pytest.raises(PolicyError, match=r"Strict.mode has no type: write `mode: Mode = \.\.\.`"):

        class Strict(Policy):
            mode = Mode.FORGET

    with pytest.raises(PolicyError, match=r"Long.words has no type: write `words: \.\.\. = "):

        class Long(Policy):
            words = Field(3, ge=1)


def test_what_is_no_option_needs_no_type() -> None:
    class Fine(Policy):
        may_edit = frozenset({"task"})
        limit: ClassVar = 3
        n: int = 2
        _seen = 0

        def edits(self, trajectory: Trajectory) -> list[Edit]:
            return []

    class Finer(Fine):
        limit = 4

    assert (Finer().n, Finer.limit, Fine.limit) == (2, 4, 3)
