"""What `leyline inspect` finds out: a run, its signals, and a policy's edits turn by turn.

The edits come out of a real `Session` to which the recorded replies are played back, so they are
what a live run would have had: committed edits stay, illegal ones are refused with the reason.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import LeylineError
from leyline_agent.message import Message, text
from leyline_agent.oddity import oddities
from leyline_agent.policy import Policy
from leyline_agent.question import Ask, at_once
from leyline_agent.readers import Recording
from leyline_agent.session import Session
from leyline_agent.signals import failures, stale
from leyline_agent.timing.moment import Moment, When
from leyline_agent.timing.timing import Timing
from leyline_agent.trajectory import ToolCall, Trajectory
from leyline_agent.turn import Turn
from leyline_agent.warning import LeylineWarning

__all__ = [
    "EditSeen",
    "FileSeen",
    "InspectReport",
    "MessageSeen",
    "MomentSeen",
    "Run",
    "Signal",
    "SkippedSeen",
    "Totals",
    "TurnSeen",
    "inspect",
]


class FileSeen(BaseModel):
    """The file the run is in: how many runs can be read, and why other records cannot."""

    runs: int = 1
    unread: list[str] = Field(default_factory=list)


class Run(BaseModel):
    """The run itself. `tokens` are estimates here and everywhere, by characters."""

    id: str
    format: str
    model: str = ""
    resolved: bool | None = None
    messages: int
    turns: int
    calls: int
    tokens: int


class MessageSeen(BaseModel):
    """One message of the history."""

    index: int
    role: str
    tools: list[str] = Field(default_factory=list)
    tokens: int
    line: str


class Signal(BaseModel):
    """Something a result shows at the end of the run.

    `signal` is `failed`, `stale` or `odd` (a message that policies can make little of), `kind` what
    said so; `by` is the message that made it stale.
    """

    index: int
    signal: Literal["failed", "stale", "odd"]
    kind: str
    detail: str = ""
    by: int | None = None


class EditSeen(BaseModel):
    """One edit: history messages [start, end) became `count` messages, which begin with `line`.

    `behind` counts the tokens behind it that the model had already read: what a prefix cache
    computes again and a splice keeps.
    """

    start: int
    end: int
    count: int
    policy: str
    reason: str
    mode: Mode
    tokens_before: int
    tokens_after: int
    behind: int
    line: str


class SkippedSeen(BaseModel):
    """A policy or an edit that was not taken, and why."""

    policy: str
    where: str
    kind: str
    detail: str


class MomentSeen(BaseModel):
    """When some of a turn's pending edits are made, and why; see `leyline_agent.Moment`.

    `places` are the history messages they stand for, half-open.
    """

    when: When
    held: bool
    reason: str
    places: list[tuple[int, int]]
    policies: list[str]
    saves: int
    cost: int
    calls: float | None


class TurnSeen(BaseModel):
    """One model call: `message` is its reply's place, `tokens` the prompt sent."""

    turn: int
    message: int
    tokens: int
    tokens_unedited: int
    edits: list[EditSeen]
    skipped: list[SkippedSeen]
    moments: list[MomentSeen] = Field(default_factory=list)


class Totals(BaseModel):
    """Sums over all turns; `behind` counts, per turn, what stands behind the leftmost edit.

    `held` counts an edit once for each turn it waited.
    """

    edits: int
    skipped: int
    held: int
    turns_with_edits: int
    prompt_tokens: int
    prompt_tokens_unedited: int
    behind: int


class InspectReport(BaseModel):
    """What `leyline inspect --json` prints."""

    format: Literal["leyline-inspect"] = "leyline-inspect"
    version: Literal[1] = 1
    file: FileSeen
    run: Run
    policy: str | None = None
    timing: str | None = None
    messages: list[MessageSeen]
    signals: list[Signal]
    turns: list[TurnSeen]
    totals: Totals


def inspect(
    recording: Recording,
    policy: Policy | None = None,
    file: FileSeen | None = None,
    timing: Timing | None = None,
) -> InspectReport:
    """Look at a run; with a policy, replay it turn by turn.

    Args:
        recording: the run.
        policy: what to replay it with.
        file: where it was read.
        timing: when edits are made, with a provider that has a prefix cache; a recording tells no
            times, so its cache never goes cold.
    """
    run = recording.trajectory()
    still = timing and timing.model_copy(update={"clock": lambda: 0.0})
    turns = list(_turns(recording, policy, still))
    return InspectReport(
        file=file or FileSeen(),
        run=_run(recording, run, len(turns)),
        policy=policy.name if policy else None,
        timing=None if timing is None else str(timing),
        messages=list(_messages(run)),
        signals=sorted(_signals(run), key=lambda s: s.index),
        turns=turns,
        totals=_totals(turns),
    )


def _run(recording: Recording, run: Trajectory, num_turns: int) -> Run:
    return Run(
        id=recording.id,
        format=recording.format,
        model=str(recording.meta.get("model") or ""),
        resolved=recording.resolved,
        messages=len(run.messages),
        turns=num_turns,
        calls=len(run.tool_calls),
        tokens=run.tokens(),
    )


def _messages(run: Trajectory) -> Iterator[MessageSeen]:
    """Each message with its tools: those it calls, or the one it answers for."""
    calls: dict[int, list[ToolCall]] = defaultdict(list)
    for call in run.tool_calls:
        calls[call.index].append(call)
    answered = {result.index: result.name for result in run.tool_results}
    for index, message in enumerate(run.messages):
        names = [call.name for call in calls[index]] or [answered.get(index, "")]
        lines = [text(message), *(str(call.raw_arguments or "") for call in calls[index])]
        yield MessageSeen(
            index=index,
            role=str(message["role"]),
            tools=[name for name in names if name],
            tokens=run.tokens([message]),
            line=next((first for said in lines if (first := _first_line(said))), ""),
        )


def _first_line(said: str) -> str:
    """The first line that says something, at most 200 characters of it."""
    return said.lstrip()[:200].partition("\n")[0].rstrip()


def _signals(run: Trajectory) -> Iterator[Signal]:
    for failed in failures(run):
        yield Signal(
            index=failed.index, signal="failed", kind=failed.kind, detail=failed.summary[:200]
        )
    for old in stale(run):
        yield Signal(
            index=old.result.index,
            signal="stale",
            kind=old.kind,
            detail=old.path,
            by=old.superseded_by,
        )
    for odd in oddities(run):
        yield Signal(index=odd.index, signal="odd", kind=odd.kind, detail=odd.detail)


def _nobody(ask: Ask) -> str:
    raise LeylineError(
        f"{ask.policy} wants a model asked, and inspect asks none; leyline replay --fulfil does"
    )


def _turns(
    recording: Recording, policy: Policy | None, timing: Timing | None
) -> Iterator[TurnSeen]:
    """Every model call of the run: each assistant message with something in front of it."""
    session = Session(policy, timing=timing, fulfil=at_once(_nobody))
    messages = list(recording.messages)
    replies = [i for i, m in enumerate(messages) if i and m["role"] == "assistant"]
    whole = Trajectory(messages[: replies[0]]) if replies else Trajectory(())
    for number, index in enumerate(replies, start=1):
        whole = whole.extended(messages[len(whole.messages) : index])
        # The report names what was skipped, each time.
        with warnings.catch_warnings(action="ignore", category=LeylineWarning):
            turn = session.begin(messages[:index], recording.tools or None)
        turn.finish(messages[index])
        yield _turn(session, turn, number, index, whole.tokens())


def _turn(session: Session, turn: Turn, number: int, index: int, unedited: int) -> TurnSeen:
    sent: Sequence[Message] = turn.request["messages"]
    places = [e for e in session.edits if e.version == turn.commit.version]
    return TurnSeen(
        turn=number,
        message=index,
        tokens=turn.trajectory.tokens(sent),
        tokens_unedited=unedited,
        edits=[
            _edit(turn, edit, place.start, place.end)
            for edit, place in zip(turn.edits, places, strict=True)
        ],
        skipped=[SkippedSeen(**skipped._asdict()) for skipped in turn.skipped],
        moments=[_moment(turn, moment) for moment in turn.moments],
    )


def _edit(turn: Turn, edit: Edit, start: int, end: int) -> EditSeen:
    seen = turn.trajectory
    known = seen.messages[edit.end : turn.commit.base_len]
    return EditSeen(
        start=start,
        end=end,
        count=len(edit.replacement),
        policy=edit.policy,
        reason=edit.reason,
        mode=edit.effective_mode(),
        tokens_before=seen.tokens(seen.messages[edit.start : edit.end]),
        tokens_after=seen.tokens(edit.replacement),
        behind=seen.tokens(known),
        line=_first_line("\n".join(map(text, edit.replacement))),
    )


def _moment(turn: Turn, moment: Moment) -> MomentSeen:
    return MomentSeen(
        **moment.model_dump(exclude={"edits"}),
        places=[turn.place(Edit(edit.start, edit.end)) for edit in moment.edits],
        policies=list(dict.fromkeys(edit.policy for edit in moment.edits)),
    )


def _totals(turns: Sequence[TurnSeen]) -> Totals:
    return Totals(
        edits=sum(len(turn.edits) for turn in turns),
        skipped=sum(len(turn.skipped) for turn in turns),
        held=sum(len(m.places) for turn in turns for m in turn.moments if m.held),
        turns_with_edits=sum(bool(turn.edits) for turn in turns),
        prompt_tokens=sum(turn.tokens for turn in turns),
        prompt_tokens_unedited=sum(turn.tokens_unedited for turn in turns),
        behind=sum(max((e.behind for e in turn.edits), default=0) for turn in turns),
    )
