"""What several policies want, in one batch without edits that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from leyline_agent.edit import Edit
from leyline_agent.question import Ask

__all__ = ["arranged"]


def arranged(parts: Sequence[Sequence[Edit | Ask]], first: Sequence[Edit] = ()) -> list[Edit | Ask]:
    """The edits of all parts, without those that overlap an earlier part's, and their questions.

    Redactions are taken before everything else, `first` included: a secret waits for no other edit.
    What overlaps inside of one part stays: it is that policy's fault, to be told as such.
    """
    every = [first, *parts]
    taken = [edit for part in every for edit in part if isinstance(edit, Edit) and edit.redact]
    taken += [edit for edit in first if not edit.redact]
    ground = _Ground(taken)
    for part in parts:
        others = [edit for edit in part if isinstance(edit, Edit) and not edit.redact]
        free = [edit for edit in others if not ground.is_taken(edit)] if taken else others
        ground.take(free)
        taken += free
    return [*taken, *(ask for part in parts for ask in part if isinstance(ask, Ask))]


class _Ground:
    """Which messages are taken by edits. What `Edit.overlaps` says of each, without asking each."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._messages: set[int] = set()
        self._insides: set[int] = set()
        self._insertions: set[int] = set()
        self.take(edits)

    def take(self, edits: Iterable[Edit]) -> None:
        for edit in edits:
            if edit.start == edit.end:
                self._insertions.add(edit.start)
            else:
                self._messages.update(range(edit.start, edit.end))
                self._insides.update(range(edit.start + 1, edit.end))

    def is_taken(self, edit: Edit) -> bool:
        if edit.start == edit.end:
            return edit.start in self._insertions or edit.start in self._insides
        if not self._messages.isdisjoint(range(edit.start, edit.end)):
            return True
        return not self._insertions.isdisjoint(range(edit.start + 1, edit.end))
