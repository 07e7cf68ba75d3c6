"""What is wrong with a body: which field, what was sent, and what fits there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BeforeValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

__all__ = ["Place", "describe", "given", "place_of", "refuse", "supporting"]

Place = tuple[str | int, ...]
"""Where in a body: names of fields and indices of arrays, from the outside in."""

_SHOWN_PROBLEMS = 5
_SHOWN_CHARS = 80
_OURS = "refused"

_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field; leave it out",
    "string_type": "expected a string",
    "int_type": "expected an integer",
    "int_parsing": "expected an integer",
    "int_parsing_size": "expected an integer of fewer digits",
    "int_from_float": "expected an integer",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected an array",
    "tuple_type": "expected an array",
    "dict_type": "expected an object",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "greater_than_equal": "must be {ge:g} or more",
    "greater_than": "must be more than {gt:g}",
    "less_than_equal": "must be {le:g} or less",
    "too_short": "needs {min_length} or more items",
    "too_long": "takes {max_length} items at most",
    "string_too_short": "needs {min_length} or more characters",
    "string_too_long": "takes {max_length} characters at most",
    "literal_error": "expected {expected}",
    "enum": "expected {expected}",
}
_WITHOUT_VALUE = frozenset({"missing", "extra_forbidden", "too_short", "too_long", _OURS})


def describe(problems: Sequence[Mapping[str, Any]], *, under: int = 0) -> str:
    """Pydantic's errors on one line: `leyline.edits[0].mode: expected ..., not 'x'`.

    `under`: how many leading parts of their locations to leave out.
    """
    shown = "; ".join(_problem(problem, under) for problem in problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    return shown + (f"; and {more} more" if more > 0 else "")


def _problem(problem: Mapping[str, Any], under: int) -> str:
    kind = problem["type"]
    told = _WORDS.get(kind)
    words = told.format(**problem.get("ctx", {})) if told else str(problem["msg"])
    where = place_of(problem["loc"][under:]) or "body"
    value = "" if kind in _WITHOUT_VALUE else _shown(problem.get("input"))
    return f"{where}: {words}{value}"


def _shown(value: Any) -> str:
    """A short value as it was sent; of a long one or a container only what it is."""
    kinds: dict[type, str] = {list: "an array", dict: "an object", str: "a long text"}
    if value is None or isinstance(value, bool):
        text = "null" if value is None else str(value).lower()
    else:
        text = repr(value) if isinstance(value, str | int | float) else ""
    if not text or len(text) > _SHOWN_CHARS:
        text = kinds.get(type(value), "")
    return f", not {text}" if text else ""


def place_of(location: Sequence[str | int]) -> str:
    """Where in a body, as one would write it in code."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


def refuse(found: Iterable[tuple[Place, str]], value: Any) -> None:
    """Raise a ValidationError that tells what was found wrong and where in `value`, if anything."""
    errors = [
        InitErrorDetails(type=PydanticCustomError(_OURS, words), loc=place, input=value)
        for place, words in found
    ]
    if errors:
        raise ValidationError.from_exception_data("request", errors)


def supporting(*values: Any, otherwise: str) -> BeforeValidator:
    """For a parameter nobody acts on: these values change nothing, any other is refused by name."""
    return given(lambda value: None if value is None or value in values else otherwise)


def given(check: Callable[[Any], str | None]) -> BeforeValidator:
    """Refuses a value with the words of `check`, where it has any."""

    def validate(value: Any) -> Any:
        if (words := check(value)) is not None:
            raise PydanticCustomError(_OURS, words)
        return value

    return BeforeValidator(validate)
