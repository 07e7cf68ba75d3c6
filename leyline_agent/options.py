"""Options of policies: read from text, written as text, and what they allow in plain words."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from leyline_agent.errors import PolicyError

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "check_typed",
    "explain",
    "hint",
    "is_one_part",
    "pairs",
    "read",
    "shown",
    "split",
    "written",
]

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_LISTS = (list, tuple, set, frozenset)
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_SHOWN_CHARS = 80
_PLAIN = (int, float, str, Enum, NoneType, *_LISTS, dict, BaseModel, FieldInfo)

# Complaints of pydantic's that `_allowed` answers in full; the words of others are kept.
_ANSWERED = ("_type", "_parsing", "enum", "literal_error", "int_from_float", "than", "than_equal")


def read(options: Mapping[str, str], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """Options as a policy's class takes them, from text; lists are written a|b|c."""
    return {
        key: text.split("|") if key in fields and _is_list(fields[key].annotation) else text
        for key, text in options.items()
    }


def pairs(text: str, spec: str) -> dict[str, str]:
    """The options of "key=value,key=value", a part of `spec`.

    Raises:
        PolicyError: a part is no key=value.
    """
    found = {}
    for pair in filter(str.strip, split(text, ",")):
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise PolicyError(f"{spec!r}: {pair.strip()!r} is not key=value")
        found[key.strip()] = value.strip()
    return found


def split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand in no brackets.

    Brackets that do not match are ordinary characters.
    """
    parts, start, depth = [], 0, 0
    for index, char in enumerate(text):
        if char == separator and depth == 0:
            parts.append(text[start:index])
            start = index + 1
        depth += (char == "(") - (char == ")")
        if depth < 0:
            break
    return text.split(separator) if depth else [*parts, text[start:]]


def is_one_part(text: str) -> bool:
    """Whether `split` at "+" takes a text for one part, whatever else it is joined to."""
    return split(f"{text}+(+)", "+") == [text, "(+)"]


def written(values: Mapping[str, Any]) -> dict[str, str]:
    """Options as text, the reverse of `read`."""
    return {key: _text(value) for key, value in values.items()}


def shown(values: Mapping[str, Any]) -> str:
    """Options for people: "n=5, mode='forget'"."""
    return ", ".join(f"{key}={_plain(value)!r}" for key, value in values.items())


def explain(name: str, fields: Mapping[str, FieldInfo], error: ValidationError) -> str:
    """Which options of the policy `name` are wrong, and what is allowed."""
    problems = error.errors(include_url=False)
    return f"policy {name}: " + "; ".join(_problem(problem, fields) for problem in problems)


def check_typed(kind: type[BaseModel]) -> None:
    """That every option of a class whose body has run has a type.

    Raises:
        PolicyError: one has none.
    """
    known = {name for base in kind.__mro__[1:] for name in getattr(base, "__class_vars__", ())}
    typed = {"model_config", *inspect.get_annotations(kind), *known}
    for name, value in vars(kind).items():
        if name not in typed and not name.startswith("_") and isinstance(value, _PLAIN):
            raise PolicyError(
                f"{kind.__name__}.{name} has no type: write `{name}: {_type_of(kind, name, value)} "
                f"= ...` for an option, `{name}: ClassVar = ...` for what is none"
            )


def _type_of(kind: type[BaseModel], name: str, value: Any) -> str:
    """How an option's type is written: as it was declared, else as its value has it."""
    models = (base for base in kind.__mro__[1:] if issubclass(base, BaseModel))
    declared = (base.model_fields[name].annotation for base in models if name in base.model_fields)
    found = next(declared, type(value))
    return found.__name__ if isinstance(found, type) and found is not FieldInfo else "..."


def hint(name: str, known: Iterable[str]) -> str:
    """A question that names the nearest of the known names, if one is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return str(value)
    return value.value if isinstance(value, Enum) else value


def _text(value: Any) -> str:
    if isinstance(value, BaseModel):
        return f"({value})"  # A policy inside a policy.
    if isinstance(value, Enum):
        return _text(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, _LISTS):
        return "|".join(map(_text, value))
    return str(value)


def _problem(problem: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> str:
    place = [str(part) for part in problem["loc"]]
    key = place[0] if place else ""
    kind = problem["type"]
    if kind == "extra_forbidden" and len(place) == 1:
        return f"no option {key!r}; {hint(key, fields)}options: {', '.join(fields)}"
    allowed = _allowed(fields[key]) if key in fields else ""
    if kind == "missing" and len(place) == 1:
        return f"option {key!r} is missing" + (f"; it must be {allowed}" if allowed else "")
    if allowed and kind.endswith(_ANSWERED):
        return f"{key} must be {allowed}, not {problem['input']!r:.{_SHOWN_CHARS}}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(place)}: {message}" if place else message


def _allowed(field: FieldInfo) -> str:
    """What a field takes, in words; "" where there are none for its type."""
    kind = _kind(field.annotation)
    limits = [
        f"{words} {limit}"
        for attribute, words in _LIMITS.items()
        for item in field.metadata
        if (limit := getattr(item, attribute, None)) is not None
    ]
    return ", ".join([kind, *limits]) if kind else ""


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if origin in (Union, UnionType):
        kinds = ["None" if part is NoneType else _kind(part) for part in get_args(annotation)]
        return " or ".join(kinds) if all(kinds) else ""
    if _is_list(annotation):
        inner = _kind(next(iter(get_args(annotation)), Any))
        return f"a list, each {inner}" if inner else "a list"
    if origin is dict or annotation is dict:
        return "a dictionary"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    return _KINDS.get(annotation, "")


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in _LISTS or annotation in _LISTS
