"""Say at the end what has changed, where the context still states the old value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from leyline_agent import message as message_module
from leyline_agent.edit import Edit, protected_indices
from leyline_agent.signals import UPDATE
from leyline_agent.trajectory import Trajectory
from leyline_policies.correction import Correction

__all__ = ["Erratum"]

_CLOSING = re.compile(r"(?:\s*</\w+>)+\s*$")


class Erratum(Correction):
    """Append a state update when a later message gives a field another value than an earlier one.

    A field's value is what stands behind its name and ":" or "=" on a line of a tool result or of a
    user's message, without quotation marks or brackets around it. The view never holds two
    updates: a new one takes the place of the old, at the end, and is not repeated while nothing
    changes.

    Source: a fact edited in place and amortised does not change what the model concludes (arXiv
    2606.17107); an update at the end does. A correction is always FORGET: no cached token that saw
    the old update stays. So an update costs what stands behind the one before it: on 18 recorded
    SWE-agent runs whose results name the open file 45 edits took computed tokens from 142 to 161
    thousand.

    Attributes:
        fields: names of the fields to watch.
    """

    fields: tuple[str, ...] = ()

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """The old update dropped and the new one appended, or nothing while it holds."""
        changed, current = self._values(trajectory)
        updates = _updates(trajectory)
        told = {field: value for update in updates.values() for field, value in update.items()}
        holds = changed.keys() <= told.keys() and all(
            current.get(field, value) == value for field, value in told.items()
        )
        if (holds and len(updates) <= 1) or not _may_append(trajectory):
            return
        for index in updates:
            yield Edit(index, index + 1, reason="outdated update")
        lines = [
            f"{field}: {current.get(field, value)}" for field, value in (told | changed).items()
        ]
        update = {"role": "user", "content": "\n".join((UPDATE, *lines))}
        end = len(trajectory.messages)
        yield Edit(end, end, (update,), reason="state update")

    def _values(self, trajectory: Trajectory) -> tuple[dict[str, str], dict[str, str]]:
        """The fields that were given more than one value, and every field's last value."""
        changed: dict[str, str] = {}
        current: dict[str, str] = {}
        for message in trajectory.messages:
            if message.get("role") not in ("user", "tool", "function"):
                continue
            text = message_module.text(message)
            if text.startswith(UPDATE):
                continue
            for field, value in _stated(text, self.fields):
                if current.setdefault(field, value) != value or field in changed:
                    changed[field] = value
                current[field] = value
        return changed, current


def _may_append(trajectory: Trajectory) -> bool:
    """Whether it is the model's turn, and the task stands before what is appended."""
    last = trajectory.messages[-1].get("role") if trajectory.messages else None
    has_task = "task" in protected_indices(trajectory.messages).values()
    return has_task and not trajectory.pending and last != "assistant"


def _updates(trajectory: Trajectory) -> Mapping[int, dict[str, str]]:
    """The updates in the view: where they stand and what they say."""
    found = {}
    for index, message in enumerate(trajectory.messages):
        text = message_module.text(message) if message.get("role") == "user" else ""
        if text.startswith(UPDATE):
            lines = (line.partition(": ") for line in text.splitlines()[1:])
            found[index] = {field: value for field, _, value in lines}
    return found


@lru_cache(maxsize=2048)
def _stated(text: str, fields: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """The fields a text gives a value, in order."""
    if not any(field in text for field in fields):
        return ()
    names = "|".join(map(re.escape, fields))
    statement = re.compile(rf"^[^\w\n]*({names})[^\w\n]*?[:=](.+)$", re.MULTILINE)
    given = ((found[1], _bare(found[2])) for found in statement.finditer(text))
    return tuple((field, value) for field, value in given if value)


def _bare(value: str) -> str:
    """A value without a harness's closing tag, brackets and quotation marks."""
    return _CLOSING.sub("", value).strip(" \t\r`'\"[](){},;")
