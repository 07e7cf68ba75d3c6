"""What `leyline inspect` tells of a journal: a session turn by turn, as it happened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from leyline_agent import journal
from leyline_agent.accounting import calibrated, told_of_each
from leyline_agent.branch import Snapshot
from leyline_agent.cli.inspection import SkippedSeen
from leyline_agent.directive import Mode
from leyline_agent.errors import TrajectoryError
from leyline_agent.journal import Event
from leyline_agent.receipt import EditReceipt, Reason, Receipt
from leyline_agent.resume import follow
from leyline_agent.state import State
from leyline_agent.timing.moment import Moment
from leyline_agent.trajectory import DEFAULT_CHARS_PER_TOKEN, Trajectory

__all__ = ["EditTold", "RecallTold", "SessionTold", "Story", "Sums", "TurnTold", "story"]


class SessionTold(BaseModel):
    """Whose journal it is."""

    id: str
    adapter: str
    policies: list[str]
    mode_floor: Mode | None
    resumed: int = 0


class EditTold(BaseModel):
    """One edit: messages [start, end) of the view became `count` messages.

    What the engine did, from `mode_used` on, is null where it told of several edits together.
    """

    start: int
    end: int
    count: int
    policy: str
    reason: str
    redact: bool
    mode_asked: Mode
    mode_sent: Mode
    mode_used: Mode | None = None
    reason_code: Reason | None = None
    tokens_before: int | None = None
    tokens_after: int | None = None
    kept_behind: int | None = None


class RecallTold(BaseModel):
    """The model asked for what had been cut."""

    id: str
    found: bool
    again: bool
    policy: str


class TurnTold(BaseModel):
    """One call of the model, or edits ahead of one; hidden where the harness saw nothing of it.

    `tokens_unedited` is an estimate of the prompt without any edit. `others` are changes that the
    engine told of and that are no edit in particular.
    """

    version: int
    base: int
    outcome: Literal["committed", "hidden", "ahead", "failed", "unanswered"]
    error: str = ""
    seconds: float | None = None
    messages: int = 0
    tokens_unedited: int = 0
    prompt: int = 0
    reused_exact: int = 0
    reused_spliced: int = 0
    recomputed: int = 0
    prefilled: int = 0
    completion: int = 0
    cache_lost: int | None = None
    ttft_ms: float | None = None
    reason: Reason | None = None
    edits: list[EditTold] = Field(default_factory=list)
    others: list[EditTold] = Field(default_factory=list)
    moments: list[Moment] = Field(default_factory=list)
    recalls: list[RecallTold] = Field(default_factory=list)
    skipped: list[SkippedSeen] = Field(default_factory=list)


class Sums(BaseModel):
    """Sums over all turns; of edits ahead of a call, what they computed and no more."""

    turns: int
    failed: int
    edits: int
    skipped: int
    held: int
    recalls: int
    prompt: int
    reused: int
    computed: int


class Story(BaseModel):
    """What `leyline inspect --json` prints of a journal; `dropped` bytes of its end are cut off."""

    format: Literal["leyline-journal"] = "leyline-journal"
    version: Literal[1] = 1
    dropped: int = 0
    session: SessionTold
    turns: list[TurnTold]
    totals: Sums


def story(path: str | os.PathLike[str]) -> Story:
    """A journal's story; the file is not changed.

    Raises:
        TrajectoryError: the journal cannot be read, is corrupt, or contradicts itself.
    """
    try:
        loaded = journal.load(path)
    except OSError as error:
        raise TrajectoryError(f"cannot read the journal {os.fspath(path)}: {error}") from error
    if not loaded.events:
        raise TrajectoryError(f"{os.fspath(path)} holds no whole event; there is nothing to tell")
    opened = loaded.events[0]
    turns = list(_turns(loaded.events, os.fspath(path)))
    return Story(
        dropped=loaded.dropped,
        session=SessionTold(
            id=opened["session"],
            adapter=opened["adapter"],
            policies=opened["policies"],
            mode_floor=opened["mode_floor"],
            resumed=sum(event["event"] == "resume" for event in loaded.events),
        ),
        turns=turns,
        totals=_totals(turns),
    )


def _turns(events: Sequence[Event], name: str) -> Iterator[TurnTold]:
    """The turns in the order in which they ended; those that never did come last."""
    open_since: dict[int, Event] = {}
    for event, state in follow(events, name):
        if event["event"] == "begin":
            open_since[event["version"]] = event
        elif event["event"] == "fail":
            begun = open_since.pop(event["version"], event)
            yield TurnTold(
                version=event["version"], base=begun.get("base", 0), outcome="failed",
                error=event["error"], seconds=event["time"] - begun["time"],
            )  # fmt: skip
        elif event["event"] == "commit":
            begun = open_since.pop(event["version"])
            yield _answered(event, state, event["time"] - begun["time"])
    for version, begun in open_since.items():
        yield TurnTold(version=version, base=begun["base"], outcome="unanswered")


def _answered(event: Event, state: State, seconds: float) -> TurnTold:
    made, receipt = state.newest, state.receipts[-1]
    told = told_of_each([edit["policy"] for edit in event["edits"]], receipt.edits)
    exchange = event.get("exchange") or {}
    return TurnTold(
        version=event["version"],
        base=event["base"],
        outcome=_outcome(event, state),
        seconds=seconds,
        messages=len(made.history) - bool(event["reply"]),
        tokens_unedited=_unedited(made, receipt, bool(event["reply"])),
        **_figures(receipt),
        edits=[_edit(*both) for both in zip(event["edits"], told.each, strict=True)],
        others=[_other(other) for other in told.others],
        moments=event.get("moments", ()),
        recalls=[RecallTold(**one) for one in exchange.get("recalled", ())],
        skipped=event["skipped"],
    )


def _outcome(event: Event, state: State) -> Literal["committed", "hidden", "ahead"]:
    if event["version"] in state.ahead:
        return "ahead"
    return "hidden" if event.get("exchange") and event["reply"] is None else "committed"


_FIGURES = ("prompt", "reused_exact", "reused_spliced", "recomputed", "prefilled", "completion")


def _figures(receipt: Receipt) -> dict[str, Any]:
    names = (*_FIGURES, "cache_lost", "ttft_ms", "reason")
    return {name: getattr(receipt, name) for name in names}


def _unedited(made: Snapshot, receipt: Receipt, has_reply: bool) -> int:
    """The prompt's tokens had nothing been edited, at the characters a token of what was sent."""
    reply = Trajectory([record.message for record in made.history[-1:]]).chars if has_reply else 0
    rate = calibrated(DEFAULT_CHARS_PER_TOKEN, made.seen.chars - reply, receipt.prompt)
    return round((made.whole.chars - reply) / rate)


def _edit(edit: Event, told: EditReceipt | None) -> EditTold:
    return EditTold(
        start=edit["start"],
        end=edit["end"],
        count=len(edit["replacement"]),
        policy=edit["policy"],
        reason=edit["reason"],
        redact=edit["redact"],
        mode_asked=edit["asked"],
        mode_sent=edit["mode"],
        **_done(told),
    )


def _other(told: EditReceipt) -> EditTold:
    """What the engine did that is no edit in particular; its places are not known."""
    return EditTold(
        start=0, end=0, count=0, policy=told.policy, reason="", redact=False,
        mode_asked=told.mode_asked, mode_sent=told.mode_asked, **_done(told),
    )  # fmt: skip


def _done(told: EditReceipt | None) -> dict[str, Any]:
    if told is None:
        return {}
    done: dict[str, Any] = {"mode_used": told.mode_used, "reason_code": told.reason}
    if told.end > told.start or told.inserted:
        done |= {
            "tokens_before": told.end - told.start,
            "tokens_after": told.inserted,
            "kept_behind": told.suffix,
        }
    return done


def _totals(turns: Sequence[TurnTold]) -> Sums:
    computed = sum(turn.recomputed + turn.prefilled for turn in turns)
    calls = [turn for turn in turns if turn.outcome in ("committed", "hidden")]
    reused = sum(turn.reused_exact + turn.reused_spliced for turn in calls)
    return Sums(
        turns=sum(turn.outcome == "committed" for turn in turns),
        failed=sum(turn.outcome == "failed" for turn in turns),
        edits=sum(len(turn.edits) for turn in turns),
        skipped=sum(len(turn.skipped) for turn in turns),
        held=sum(len(m.edits) for turn in turns for m in turn.moments if m.held),
        recalls=sum(one.found for turn in turns for one in turn.recalls),
        prompt=reused + computed,
        reused=reused,
        computed=computed,
    )
