"""JSON objects whose text is kept: what is not replaced keeps its bytes.

A request is read for its session and sent on by its text, so that numbers, escapes and fields
that nobody here knows arrive as the client wrote them.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Body", "NotAnObject"]

_value = json.JSONDecoder().raw_decode
_json = json.JSONEncoder(separators=(",", ":")).encode  # escapes halves of surrogate pairs
_space = re.compile(r"[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match


class NotAnObject(ValueError):
    """What was read is no JSON object."""


class _Member(NamedTuple):
    """A member of the object.

    Attributes:
        value: what it holds.
        start, value_start, end: where its key and its value begin, and where it ends.
        elements: for a list that was read one by one, where each element stands.
    """

    value: Any
    start: int
    value_start: int
    end: int
    elements: Sequence[tuple[int, int]] = ()


class Body:
    """A JSON object, read once.

    Args:
        data: its bytes, in UTF-8.
        lists: members whose elements can be replaced one by one.

    Attributes:
        data: the bytes.
        values: its members.

    Raises:
        NotAnObject: it is none, or is nested too deep to be read.
    """

    def __init__(self, data: bytes, lists: Sequence[str] = ("messages",)) -> None:
        self.data = data
        try:
            self._text = data.decode()
            self._members = self._read(lists)
        except RecursionError as error:
            raise NotAnObject("it is nested too deep") from error
        except NotAnObject:
            raise
        except ValueError as error:  # of the decoders
            raise NotAnObject(str(error)) from error
        self.values: dict[str, Any] = {key: m.value for key, m in self._members.items()}

    def replaced(self, values: Mapping[str, Any]) -> bytes:
        """The object with these members instead; what is the very value read here keeps its bytes.

        Members that are not in `values` are left out. Of the lists read one by one, each element
        that was read here keeps its bytes.
        """
        if len(values) == len(self.values) and all(map(self._keeps, values, values.values())):
            return self.data
        members = (self._written(key, value) for key, value in values.items())
        return ("{" + ",".join(members) + "}").encode()

    def _keeps(self, key: str, value: Any) -> bool:
        """Whether a value is the one read here, or a list of the very elements read here."""
        member = self._members.get(key)
        if member is None or member.value is value:
            return member is not None
        known = member.value if member.elements else ()
        return (
            isinstance(value, list)
            and len(known) == len(value) > 0
            and all(map(operator.is_, known, value))
        )

    def _written(self, key: str, value: Any) -> str:
        member = self._members.get(key)
        if member is not None and self._keeps(key, value):
            return self._text[member.start : member.end]
        if member is not None and member.elements and isinstance(value, list):
            texts = dict(zip(map(id, member.value), member.elements, strict=True))
            return f"{_json(key)}:[{','.join(self._element(texts, each) for each in value)}]"
        return f"{_json(key)}:{_json(value)}"

    def _element(self, texts: Mapping[int, tuple[int, int]], value: Any) -> str:
        place = texts.get(id(value))
        return _json(value) if place is None else self._text[place[0] : place[1]]

    def _read(self, lists: Sequence[str]) -> dict[str, _Member]:
        members: dict[str, _Member] = {}
        start = self._behind("{", self._skip(0))
        while self._text[start : start + 1] != "}":
            self._behind('"', start)
            key, at = _value(self._text, start)
            at = self._behind(":", self._skip(at))
            if key in lists and self._text[at : at + 1] == "[":
                members[key] = self._list(start, at)
            else:
                value, end = _value(self._text, at)
                members[key] = _Member(value, start, at, end)
            start = self._skip(members[key].end)
            if self._text[start : start + 1] != "}":
                start = self._behind(",", start)
                self._behind('"', start)  # no comma behind the last one
        if self._skip(start + 1) != len(self._text):
            raise NotAnObject(f"something follows the object, at character {start + 1}")
        return members

    def _list(self, start: int, value_start: int) -> _Member:
        values: list[Any] = []
        places: list[tuple[int, int]] = []
        at = self._behind("[", value_start)
        if self._text[at : at + 1] == "]":
            return _Member(values, start, value_start, at + 1)
        more = True
        while more:
            value, end = _value(self._text, at)
            values.append(value)
            places.append((at, end))
            comma = _comma(self._text, end)
            at, more = (comma.end(), True) if comma else (self._skip(end), False)
        self._behind("]", at)
        return _Member(values, start, value_start, at + 1, places)

    def _behind(self, character: str, at: int) -> int:
        """The place behind a character, and behind the space that follows it."""
        if self._text[at : at + 1] != character:
            raise NotAnObject(f"no {character} at character {at}")
        return self._skip(at + 1)

    def _skip(self, at: int) -> int:
        found = _space(self._text, at)
        return found.end() if found else at
