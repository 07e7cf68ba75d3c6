"""What is wrong with a body, told in the words of whoever sent it."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leyline_agent.directive import Mode
from leyline_agent.serving.explain import describe, given, place_of, refuse, supporting


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    mode: Mode = Mode.REPAIR
    span: tuple[int, int] = (0, 1)


class Body(BaseModel):
    name: str = Field("", max_length=3)
    number: float | None = Field(None, ge=0, le=10, allow_inf_nan=False)
    flag: bool = False
    inner: list[Inner] = Field(default_factory=list, max_length=2)
    one: Annotated[Any, supporting(1, otherwise="only one")] = None
    odd: Annotated[Any, given(lambda value: None if value % 2 else "{is} even")] = 1


def told(**body: Any) -> str:
    with pytest.raises(ValidationError) as raised:
        Body.model_validate(body)
    return describe(raised.value.errors())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": 7}, "name: expected a string, not 7"),
        ({"name": None}, "name: expected a string, not null"),
        ({"name": "long"}, "name: takes 3 characters at most, not 'long'"),
        ({"name": "x" * 500}, "name: takes 3 characters at most, not a long text"),
        ({"number": "x"}, "number: expected a number, not 'x'"),
        ({"number": -1}, "number: must be 0 or more, not -1"),
        ({"number": float("nan")}, "number: expected a finite number, not nan"),
        ({"number": []}, "number: expected a number, not an array"),
        ({"flag": 1.5}, "flag: expected true or false, not 1.5"),
        ({"inner": "x"}, "inner: expected an array, not 'x'"),
        ({"inner": [1]}, "inner[0]: expected an object, not 1"),
        ({"inner": [{}] * 3}, "inner: takes 2 items at most"),
        ({"inner": [{"oops": 1}]}, "inner[0].oops: there is no such field; leave it out"),
        ({"inner": [{"mode": True}]}, "expected 'amortize', 'repair' or 'forget', not true"),
        ({"inner": [{"span": [1]}]}, "inner[0].span[1]: is missing"),
        ({"one": 2}, "one: only one"),
        ({"odd": 2}, "odd: {is} even"),
    ],
)
def test_a_problem_is_named_in_plain_words(body: dict[str, Any], words: str) -> None:
    assert told(**body).endswith(words)


def test_no_more_than_five_are_told() -> None:
    many = told(inner=[{"a": 1, "b": 1, "c": 1, "d": 1}, {"e": 1, "f": 1, "g": 1}])
    assert many.count("no such field") == 5
    assert many.endswith("; and 2 more")


def test_every_word_of_pydantics_that_is_left_is_readable() -> None:
    assert told(inner=[{"span": [1, 2, 3]}]) == "inner[0].span: takes 2 items at most"


def test_a_place_is_written_as_in_code() -> None:
    assert place_of(("leyline", "edits", 0, "mode")) == "leyline.edits[0].mode"
    assert place_of(()) == ""


def test_what_is_found_below_is_told_with_its_place() -> None:
    refuse([], None)
    with pytest.raises(ValidationError) as raised:
        refuse([(("a", 0), "wrong"), ((), "also {wrong}")], {"a": [1]})
    assert describe(raised.value.errors()) == "a[0]: wrong; body: also {wrong}"


def test_values_that_change_nothing_are_taken() -> None:
    assert Body.model_validate({"one": None}).one is None
    assert Body.model_validate({"one": 1}).one == 1
