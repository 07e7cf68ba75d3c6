"""`leyline inspect` on a journal: the story on the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from leyline_agent.cli.story import EditTold, Story, TurnTold
from leyline_agent.cli.text import printable

__all__ = ["tell"]


def tell(found: Story, why: bool) -> None:
    """Print a story; with `why` also the reasons, in words."""
    console = Console(highlight=False, soft_wrap=True)
    session, totals = found.session, found.totals
    floor = f", mode at least {session.mode_floor.value}" if session.mode_floor else ""
    policies = " + ".join(session.policies) or "no policies"
    _print(console, f"{session.id} (journal; {policies}; through {session.adapter}{floor})")
    for turn in found.turns:
        style = "" if turn.outcome in ("committed", "hidden", "ahead") else "red"
        _print(console, _headline(turn), style)
        for line in _lines(turn, why):
            _print(console, f"  {line}")
    failed = f", {totals.failed} failed" if totals.failed else ""
    resumed = f", resumed {_number(session.resumed, 'time')}" if session.resumed else ""
    held = f", {totals.held} held" if totals.held else ""
    recalls = f", {_number(totals.recalls, 'recall')}" if totals.recalls else ""
    _print(
        console,
        f"\n{_number(totals.turns, 'turn')}{failed}{resumed}; {_number(totals.edits, 'edit')}, "
        f"{totals.skipped} skipped"
        f"{held}{recalls}. Prompts over all turns: {totals.prompt:,} tokens, of which "
        f"{totals.reused:,} were reused and {totals.computed:,} computed.",
    )
    if found.dropped:
        _print(console, f"the last {found.dropped} bytes are a line that was cut off", "red")


def _headline(turn: TurnTold) -> str:
    came = f"version {turn.version} from {turn.base}"
    if turn.outcome == "failed":
        return f"{came}: failed: {turn.error}"
    if turn.outcome == "unanswered":
        return f"{came}: no answer is on record"
    what = "edited ahead" if turn.outcome == "ahead" else _number(turn.messages, "message")
    reason = f" ({turn.reason.value})" if turn.reason and turn.reason.value != "asked" else ""
    if not turn.prompt:
        return f"{came}: {what}, not counted by the engine{reason}"
    if turn.outcome == "hidden":
        what += ", the reply a recall that the harness does not see"
    instead = f" instead of about {turn.tokens_unedited:,}" if _is_shorter(turn) else ""
    parts = [
        f"{count:,} {name}"
        for name, count in (
            ("exact", turn.reused_exact),
            ("spliced", turn.reused_spliced),
            ("recomputed", turn.recomputed),
            ("prefilled", turn.prefilled),
        )
        if count
    ]
    lost = f"; the provider's cache lost {turn.cache_lost:,}" if turn.cache_lost else ""
    first = f"; first token {turn.ttft_ms:,.0f} ms" if turn.ttft_ms is not None else ""
    return (
        f"{came}: {what}, {turn.prompt:,} tokens{instead}: {', '.join(parts)}{lost}{first}{reason}"
    )


def _is_shorter(turn: TurnTold) -> bool:
    """Whether edits have shortened the prompt by more than an estimate is off."""
    return turn.tokens_unedited > turn.prompt * 1.02


def _lines(turn: TurnTold, why: bool) -> Iterator[str]:
    for edit in turn.edits:
        yield _edit(edit)
        if why and edit.reason:
            yield f"  why: {edit.reason}"
    for other in turn.others:
        by = f"edits of {other.policy}, together" if other.policy else "changed undeclared"
        yield f"{by}: {_modes(other)}{_tokens(other)}"
    for moment in turn.moments:
        if why or moment.held:
            yield str(moment)
    for one in turn.recalls:
        again = ", again" if one.again else ""
        yield (
            f"recalled {one.id}{again}, cut by {one.policy}"
            if one.found
            else (f"asked to recall {one.id or 'nothing that can be read'}, which is not there")
        )
    for skipped in turn.skipped:
        where = f" {skipped.where}" if skipped.where else ""
        detail = f": {skipped.detail}" if why else ""
        yield f"skipped {skipped.policy}{where}: {skipped.kind}{detail}"


def _edit(edit: EditTold) -> str:
    span = f"message {edit.start}"
    if edit.end != edit.start + 1:
        span = f"messages [{edit.start}, {edit.end})"
    became = "dropped" if not edit.count else "redacted" if edit.redact else f"-> {edit.count}"
    return f"{edit.policy}: {span} {became}, {_modes(edit)}{_tokens(edit)}"


def _modes(edit: EditTold) -> str:
    used = edit.mode_used or edit.mode_sent
    modes = used.value if used is edit.mode_asked else f"{edit.mode_asked.value} -> {used.value}"
    if edit.reason_code is None or edit.reason_code.value == "asked":
        return modes
    return f"{modes} ({edit.reason_code.value})"


def _tokens(edit: EditTold) -> str:
    if edit.tokens_before is None:
        return ""
    return f", {edit.tokens_before:,} -> {edit.tokens_after:,} tokens, {edit.kept_behind:,} behind"


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(Text(printable(line), style))
