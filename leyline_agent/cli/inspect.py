"""`leyline inspect`: a recorded run, its signals, and what a policy would cut, without a model."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from leyline_agent.cli.inspection import (
    EditSeen,
    FileSeen,
    InspectReport,
    MomentSeen,
    Signal,
    TurnSeen,
    inspect,
)
from leyline_agent.cli.story import story
from leyline_agent.cli.telling import tell
from leyline_agent.cli.text import printable
from leyline_agent.errors import LeylineError, TrajectoryError
from leyline_agent.journal import is_journal
from leyline_agent.policy import as_policy
from leyline_agent.readers import Recording, read
from leyline_agent.timing.moment import When
from leyline_agent.timing.timing import as_timing

__all__ = ["command"]

_COLOURS = {"failed": "red", "stale": "yellow", "odd": "magenta"}
UNREAD_SHOWN = 5
PLACES_SHOWN = 6
_TOOL_WIDTH = 18
_WHEN = {When.NOW: "now", When.TOOL: "while the tool runs", When.WAIT: "held"}


def command(
    file: Annotated[
        Path, typer.Argument(help="A recorded run of any format Leyline reads, or a journal.")
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            help="Show what this cuts: name:key=value,... joined by + or given again; your own is "
            "file.py:Name.",
        ),
    ] = None,
    timing: Annotated[
        str,
        typer.Option(
            "--timing",
            help="When the policy cuts: now, or auto[:key=value,...] as a provider's cache makes "
            "it pay.",
        ),
    ] = "now",
    record: Annotated[
        int, typer.Option("--record", min=0, help="Which of the file's readable runs, from 0.")
    ] = 0,
    why: Annotated[
        bool,
        typer.Option(
            "--why",
            help="Say why: each edit's reason, result and moment, each signal's evidence.",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON on standard output instead of the tables.")
    ] = False,
) -> None:
    """Show a run message by message, and what a policy would cut at each turn.

    Example: `leyline inspect runs.jsonl --policy keep_last:n=5 --timing auto --why`

    No model is needed: token counts are estimates, by characters. *behind* an edit stand the tokens
    that a prefix cache computes again and a splice keeps. Of a session's journal it tells what
    happened, turn by turn; with `--policy` that is a run like any other. Records of the file that
    cannot be read are told on standard error; the exit status is 2 where the run asked for is not
    there.
    """
    moments = as_timing(timing)
    if not policy and moments is not None:
        raise LeylineError("--timing says when a policy cuts; name one with --policy")
    if not policy and is_journal(file):
        if record:
            raise LeylineError("--record takes a journal as runs; name a --policy to cut them with")
        told = story(file)
        typer.echo(told.model_dump_json(indent=2)) if json else tell(told, why)
        return
    chosen = as_policy(policy if len(policy) > 1 else policy[0]) if policy else None
    recording, seen = _recording(file, record)
    found = inspect(recording, chosen, seen, moments)
    if json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print(found, why)
    _tell_unread(seen.unread)


def _recording(file: Path, number: int) -> tuple[Recording, FileSeen]:
    """The run asked for, and what else is in the file; all of it is read, to tell what cannot be.

    Raises:
        TrajectoryError: the file cannot be read, or holds no such run.
    """
    seen = FileSeen(runs=0)
    found: Recording | None = None
    try:
        for recording in read(file, on_error=lambda error: seen.unread.append(str(error))):
            found = recording if seen.runs == number else found
            seen.runs += 1
    except TrajectoryError as error:  # nothing of the rest can be read
        seen.unread.append(str(error))
    if found is not None:
        return found, seen
    if not seen.runs and seen.unread:
        raise TrajectoryError(seen.unread[0])
    also = f"; {len(seen.unread)} more cannot be read: {seen.unread[0]}" if seen.unread else ""
    raise TrajectoryError(f"{file}: no record {number}; it holds {seen.runs}, counted from 0{also}")


def _tell_unread(unread: Sequence[str]) -> None:
    """Say on standard error which records were left out, and why."""
    for reason in unread[:UNREAD_SHOWN]:
        typer.echo(f"leyline: not read: {printable(reason)}", err=True)
    if len(unread) > UNREAD_SHOWN:
        typer.echo(f"leyline: {len(unread) - UNREAD_SHOWN} more records not read", err=True)


def _print(found: InspectReport, why: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    run = found.run
    solved = {True: ", solved", False: ", not solved", None: ""}[run.resolved]
    model = f", {run.model}" if run.model else ""
    console.print(
        _safe(
            f"{run.id} ({run.format}{model}{solved}): {run.messages} messages, {run.turns} turns, "
            f"{run.calls} tool calls, about {run.tokens:,} tokens"
        )
    )
    if found.file.runs > 1:
        console.print(f"one of {found.file.runs} runs in the file; --record N shows another")
    console.print(_messages(found, console.width), soft_wrap=False)
    if why:
        _print_signals(console, found.signals)
    if found.policy is not None:
        _print_policy(console, found, why)


def _messages(found: InspectReport, width: int) -> Table:
    """The messages, their first line cut so that the table fits `width` columns."""
    signals: dict[int, list[Signal]] = {}
    for signal in found.signals:
        signals.setdefault(signal.index, []).append(signal)
    rows = [
        (
            Text(str(message.index), justify="right"),
            _safe(message.role),
            _safe(", ".join(dict.fromkeys(message.tools))),
            Text(f"{message.tokens:,}", justify="right"),
            Text("  ").join([*map(_signal, signals.get(message.index, [])), _safe(message.line)]),
        )
        for message in found.messages
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("#", "role", "tool", "tokens", "signals and first line"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        row[2].truncate(_TOOL_WIDTH, overflow="ellipsis")
    widths = [max(row[i].cell_len for row in rows) for i in range(4)] if rows else []
    used = sum(max(widths[i], len(str(table.columns[i].header))) + 2 for i in range(len(widths)))
    for row in rows:
        row[-1].truncate(max(width - used, 20), overflow="ellipsis")
        table.add_row(*row)
    return table


def _signal(signal: Signal) -> Text:
    by = f" by {signal.by}" if signal.by is not None else ""
    return Text(f"{signal.signal}: {signal.kind}{by}", style=_COLOURS[signal.signal])


def _print_signals(console: Console, signals: Sequence[Signal]) -> None:
    console.print("\nsignals:" if signals else "\nno signals")
    for signal in signals:
        detail = _safe(f": {signal.detail}" if signal.detail else "")
        console.print(Text(f"  message {signal.index} ") + _signal(signal) + detail)


def _print_policy(console: Console, found: InspectReport, why: bool) -> None:
    when = f" with timing {found.timing}" if found.timing else ""
    console.print(_safe(f"\n{found.policy}{when}, turn by turn:"))
    quiet = True
    for turn in found.turns:
        if turn.edits or turn.skipped or (why and turn.moments):
            quiet = False
            _print_turn(console, turn, why)
    if quiet:
        console.print("nothing to cut")
    totals = found.totals
    held = f", {totals.held} times one was held" if found.timing else ""
    _print_wrapped(
        console,
        f"\n{totals.edits} edits in {totals.turns_with_edits} of {len(found.turns)} turns, "
        f"{totals.skipped} skipped{held}. Prompts over all turns: {totals.prompt_tokens:,} tokens "
        f"instead of {totals.prompt_tokens_unedited:,}; behind the edits stood {totals.behind:,}, "
        "which a prefix cache computes again and a splice keeps.",
    )


def _print_turn(console: Console, turn: TurnSeen, why: bool) -> None:
    console.print(
        f"turn {turn.turn} (before message {turn.message}): {turn.tokens:,} tokens "
        f"instead of {turn.tokens_unedited:,}"
    )
    for edit in turn.edits:
        console.print(_safe(f"  {_change(edit)}"))
        if why:
            now = f"now begins: {edit.line}" if edit.line else "now empty"
            left = now if edit.count else "dropped"
            _print_wrapped(console, f"    why: {edit.reason}; {left}")
    for moment in turn.moments if why else ():
        _print_wrapped(console, f"  {_moment(moment)}")
    for skipped in turn.skipped:
        where = f" {skipped.where}" if skipped.where else ""
        detail = f": {skipped.detail}" if why else ""
        console.print(
            _safe(f"  skipped {skipped.policy}{where}: {skipped.kind}{detail}"), style="red"
        )


def _moment(moment: MomentSeen) -> str:
    """When which edits are made, and why."""
    count = len(moment.places)
    places = [str(a) if b <= a + 1 else f"{a} to {b - 1}" for a, b in moment.places[:PLACES_SHOWN]]
    more = f" and {count - PLACES_SHOWN} more" if count > PLACES_SHOWN else ""
    when = _WHEN[moment.when]
    when = f"held until {when}" if moment.held and moment.when is When.TOOL else when
    edits = f"{count} edit{'s' * (count != 1)} (message{'s' * (count != 1)} "
    return f"{when}: {edits}{', '.join(places)}{more}): {moment.reason}"


def _change(edit: EditSeen) -> str:
    what = f"message {edit.start}"
    if edit.end != edit.start + 1:
        what = f"messages [{edit.start}, {edit.end})"
    became = f"{edit.tokens_before:,} -> {edit.tokens_after:,} tokens"
    return f"{what}: {became}, {edit.mode.value}, {edit.behind:,} behind, by {edit.policy}"


def _print_wrapped(console: Console, line: str) -> None:
    """Print a line in the terminal's width, further ones indented like it."""
    text = printable(line.lstrip("\n"))
    indent = " " * (len(text) - len(text.lstrip()) + 2 * text.startswith(" "))
    lines = textwrap.wrap(text, max(console.width, 40), subsequent_indent=indent)
    console.print(Text("\n" * line.startswith("\n") + "\n".join(lines)))


def _safe(untrusted: str) -> Text:
    """Text without markup or control characters."""
    return Text(printable(untrusted))
