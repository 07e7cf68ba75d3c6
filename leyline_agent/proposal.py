"""Proposals: running policies on a view, and what of their edits is taken.

Nothing a policy does can end a turn, unless it redacts: one that raises is skipped for this turn,
an illegal edit is refused by itself, one that edits its own edits over and over is stopped; each
with a reason that is logged and kept, and the first of each policy is worth a warning.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from leyline_agent.adapter import Capabilities, WireEdit
from leyline_agent.arrangement import arranged
from leyline_agent.directive import Mode, strongest
from leyline_agent.edit import Edit, sift
from leyline_agent.errors import CallRefused, EditError, LeylineError, PolicyLoop, UnsupportedMode
from leyline_agent.oddity import Oddity, oddities
from leyline_agent.policy import Pipeline, Policy
from leyline_agent.question import Ask
from leyline_agent.receipt import Reason
from leyline_agent.redaction import in_force, is_sound, redacts
from leyline_agent.timing.moment import Moment
from leyline_agent.trajectory import Trajectory
from leyline_agent.view import Record, View, record

__all__ = ["Accepted", "Mark", "Proposal", "Proposer", "Skipped", "mode_for"]

logger = logging.getLogger("leyline.session")

HARNESS = "harness"
"""The name under which edits declared by the harness itself go."""

Mark = Callable[[Edit, tuple[Record, ...], View], tuple[Record, ...]]

MAX_ROUNDS = 3
"""How often messages are edited again with nothing new among them before it counts as a loop."""


class Skipped(NamedTuple):
    """A policy or an edit that was not taken.

    Attributes:
        policy: its name.
        where: the messages it meant, "" for the whole policy.
        kind: the error's name.
        detail: what was wrong.
    """

    policy: str
    where: str
    kind: str
    detail: str

    def __str__(self) -> str:
        what = "an edit of " + self.where if self.where else "this turn"
        return f"{self.policy}: {what} skipped: {self.kind}: {self.detail}"


class Accepted(NamedTuple):
    """An edit that goes into the commit.

    Attributes:
        edit: in indices of the view; its own `mode` is the one asked for.
        records: its replacement, as the session keeps and sends it.
        mode: the mode it is sent with.
        reason: why that differs from the one asked for, or ASKED.
    """

    edit: Edit
    records: tuple[Record, ...]
    mode: Mode
    reason: Reason

    @property
    def sent(self) -> Edit:
        """The edit as the model sees it."""
        return replace(self.edit, replacement=tuple(known.message for known in self.records))

    @property
    def wire(self) -> WireEdit:
        """The edit as it goes on the wire."""
        return WireEdit(
            messages=(self.edit.start, self.edit.end),
            count=len(self.records),
            mode=self.mode,
            reason=self.edit.reason,
            policy=self.edit.policy,
            redact=self.edit.redact,
        )


@dataclass(frozen=True)
class Proposal:
    """What one turn's policies came to.

    Attributes:
        accepted: the edits taken, by place.
        held: edits left for a later moment; policies propose them again.
        moments: what was decided of both; empty where there is no timing.
        skipped: what was not taken.
        warnings: what the user is to be warned of: the first fault of each policy.
        seconds: the time the policies took.
        asks: what the policies want a model to be asked.
    """

    accepted: tuple[Accepted, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    asks: tuple[Ask, ...] = ()
    held: tuple[Accepted, ...] = ()
    moments: tuple[Moment, ...] = ()


def mode_for(asked: Mode, floor: Mode | None, capabilities: Capabilities) -> tuple[Mode, Reason]:
    """The mode an edit is sent with: the strongest of asked and floor that the engine has.

    An engine that names no modes computes whatever changed again: FORGET.

    Raises:
        UnsupportedMode: every mode the engine has is weaker.
    """
    wanted = strongest(asked, floor)
    reason = Reason.USER_FLOOR if wanted is not asked else Reason.ASKED
    available = capabilities.modes or {Mode.FORGET}
    enough = [mode for mode in available if mode.strength >= wanted.strength]
    if not enough:
        has = ", ".join(sorted(mode.value for mode in available))
        raise UnsupportedMode(
            f"the engine cannot {wanted.value}; it has {has}, which is weaker. Use an engine that "
            "can, or ask for less"
        )
    mode = min(enough, key=lambda m: m.strength)
    return mode, reason if mode is wanted else Reason.ENGINE_CANNOT_SPLICE


class Proposer:
    """Runs a session's policies and sifts their edits.

    Args:
        policy: the policy, or a pipeline whose parts are run and fail apart from each other.
        floor: the weakest mode the user allows.
        capabilities: the engine's.
        deadline: seconds a policy may take before it is logged with its time.
        mark: given an edit and the records of its replacement, adds what policies know nothing of.
    """

    def __init__(
        self,
        policy: Policy,
        floor: Mode | None,
        capabilities: Capabilities,
        deadline: float,
        mark: Mark | None = None,
    ) -> None:
        self.parts = _parts(policy)
        self._mark = mark
        self._floor = floor
        self._capabilities = capabilities
        self._deadline = deadline
        self._told: set[tuple[str, str]] = set()
        self._warned: set[str] = set()

    def propose(
        self,
        view: View,
        trajectory: Trajectory,
        declared: Sequence[Edit],
        kept: int = 0,
        notes: Sequence[Skipped] = (),
    ) -> Proposal:
        """The edits taken on `view` this turn.

        Args:
            view: what is edited.
            trajectory: the same, as policies see it.
            declared: the harness's own edits, served first.
            kept: how many messages of the history earlier turns have had.
            notes: what became of earlier questions of the policies.

        Raises:
            CallRefused: a policy that redacts raised: what it would take out must not be sent.
        """
        for odd in oddities(trajectory.original, kept):
            self._tell(("", odd.kind), odd)
        started = time.perf_counter()
        faults = list(notes)
        wanted = self._wanted(trajectory, declared, faults)
        batch = [want for want in wanted if isinstance(want, Edit)]
        asks = tuple(want for want in wanted if isinstance(want, Ask))
        accepted, refused = self._sift(batch, view, trajectory)
        asked_for: list[Skipped] = []
        for edit, error in refused:
            pinned = any(index in trajectory.pinned for index in range(edit.start, edit.end))
            (asked_for if pinned else faults).append(_skipped(edit, error))
        for note in (*faults, *asked_for):
            self._tell((note.policy, note.kind), note)
        warnings = tuple(str(note) for note in faults if self._is_first(note))
        skipped = (*faults, *asked_for)
        if any(edit.redact for edit in batch):
            asks = ()  # They may quote what is to go; a turn later they do not.
        return Proposal(accepted, skipped, warnings, time.perf_counter() - started, asks)

    def _wanted(
        self, trajectory: Trajectory, declared: Sequence[Edit], faults: list[Skipped]
    ) -> list[Edit | Ask]:
        found = [self._run(part, trajectory, faults) for part in self.parts]
        wanted = arranged(found, declared)
        redactors = [part for part, wants in zip(self.parts, found, strict=True) if redacts(wants)]
        if not redactors:
            return wanted
        again = [partial(self._run, part, faults=faults) for part in redactors]
        return in_force(wanted, trajectory, again)

    def _run(self, part: Policy, trajectory: Trajectory, faults: list[Skipped]) -> list[Edit | Ask]:
        started = time.perf_counter()
        try:
            return part.wants(trajectory)
        except Exception as error:  # A policy is a user's code; whatever it raises costs one turn.
            logger.debug("policy %s raised", part.name, exc_info=True)
            told = f"{error} ({_place(error)})"
            if part.redacts:
                raise CallRefused(
                    f"a model call was not made: policy {part.name} redacts, and raised "
                    f"{type(error).__name__}: {told}. Mend it, or take it away"
                ) from error
            faults.append(Skipped(part.name, "", type(error).__name__, told))
            return []
        finally:
            took = time.perf_counter() - started
            if took > self._deadline:
                logger.warning(
                    "policy %s took %.0f ms, over its deadline of %.0f ms",
                    part.name, took * 1e3, self._deadline * 1e3,
                )  # fmt: skip

    def _sift(
        self, batch: list[Edit], view: View, trajectory: Trajectory
    ) -> tuple[tuple[Accepted, ...], list[tuple[Edit, LeylineError]]]:
        taken: list[Accepted] = []
        refused: list[tuple[Edit, LeylineError]] = []
        for edit in batch:
            try:
                accepted = self._vetted(edit, view)
            except LeylineError as error:
                refused.append((edit, error))
            else:
                taken += accepted
        legal, illegal = sift([a.edit for a in taken], trajectory.messages, trajectory.pinned)
        by_edit = {id(a.edit): a for a in taken}
        return tuple(by_edit[id(edit)] for edit in legal), [*refused, *illegal]

    def _vetted(self, edit: Edit, view: View) -> list[Accepted]:
        """The edit with its records and mode; nothing when it would change nothing."""
        if not is_sound(edit):
            raise EditError(f"{edit}: every replacement must be a message with a role")
        records = tuple(map(record, edit.replacement))
        inside = 0 <= edit.start <= edit.end <= len(view)
        if inside and self._mark is not None:
            records = self._mark(edit, records, view)
        edit = replace(edit, replacement=tuple(r.seen for r in records))
        if inside:
            if _changes_nothing(edit, records, view):
                return []
            if view.rounds(edit) > MAX_ROUNDS:
                raise PolicyLoop(
                    f"{edit} edits what was edited {MAX_ROUNDS} times before, with nothing new in "
                    "it; yield no edit where nothing is left to do"
                )
        mode, reason = mode_for(edit.effective_mode(), self._floor, self._capabilities)
        return [Accepted(edit, records, mode, reason)]

    def _tell(self, key: tuple[str, str], note: Skipped | Oddity) -> None:
        """Log at warning level once; what goes wrong every turn shall not flood the log."""
        level = logging.DEBUG if key in self._told else logging.WARNING
        self._told.add(key)
        logger.log(level, "%s", note)

    def _is_first(self, note: Skipped) -> bool:
        """Whether the user was not warned of this policy yet."""
        known = note.policy in self._warned
        self._warned.add(note.policy)
        return not known


def _parts(policy: Policy) -> tuple[Policy, ...]:
    if isinstance(policy, Pipeline):
        return tuple(leaf for part in policy.policies for leaf in _parts(part))
    return (policy,)


def _changes_nothing(edit: Edit, records: tuple[Record, ...], view: View) -> bool:
    """By what identifies messages; a redaction also by what providers put beside that."""
    before = view.records[edit.start : edit.end]
    if edit.redact and [r.message for r in records] != [r.message for r in before]:
        return False
    return bool(before) and [r.digest for r in records] == [r.digest for r in before]


def _place(error: Exception) -> str:
    """Where it was raised: the frame furthest in."""
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"


def _skipped(edit: Edit, error: LeylineError) -> Skipped:
    where = f"messages [{edit.start}, {edit.end})"
    return Skipped(edit.policy, where, type(error).__name__, str(error))
