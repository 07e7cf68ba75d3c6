"""Stale outputs: results that a later call has made out of date or shows again.

A result is stale when *every* piece of it is: a file part whose file was written later
("edited") or of which at least the same lines were read later ("reread"), the output of a command
or query that was run again later ("rerun"). What cannot be told is not stale: unknown programs
and undeclared tools write nothing here, a failed read supersedes nothing, a part never supersedes
the whole, and neither does a result that is itself no longer in the view.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, NamedTuple

from leyline_agent.signals.commands import pipelines
from leyline_agent.signals.effects import BUILTIN, ToolEffects, effects_of
from leyline_agent.signals.failed import Failure, failure
from leyline_agent.signals.history import originals
from leyline_agent.signals.invocation import invocation
from leyline_agent.signals.memory import remembered
from leyline_agent.signals.outputs import Effects, Piece, Read, Run, covers
from leyline_agent.signals.reading import resolve
from leyline_agent.signals.stub import is_cut, is_stub
from leyline_agent.trajectory import ToolResult, Trajectory

__all__ = ["Stale", "StaleKind", "stale"]

StaleKind = Literal["edited", "reread", "rerun"]

# Harnesses mark a text they cut short with one of these.
_CLIPPED = re.compile(
    r"<response clipped>|<elided_chars>|<output truncated>|\[\.\.\. Observation truncated"
)
_FRESH_SHELL = re.compile(r"\s*<(?:returncode|exception)>")
_TOLD_DIRECTORY = re.compile(
    r"\(Current directory: (\S+)\)|\[Current working directory: (\S+)\]|@[\w.-]+:(/\S*) [#$]"
)
_DIRECTORY_CHARS = 300


@dataclass(frozen=True)
class Stale:
    """A stale result.

    Attributes:
        result: the result, in the view.
        kind: what made its last current piece stale.
        superseded_by: place in the view of the result that did.
        path: the file that was edited or read again; "" for a rerun.
    """

    result: ToolResult
    kind: StaleKind
    superseded_by: int
    path: str = ""


def stale(
    trajectory: Trajectory, effects: Mapping[str, ToolEffects] = BUILTIN
) -> tuple[Stale, ...]:
    """The stale results of a view, in order.

    Args:
        trajectory: the view; outcomes are judged by what its history's tools answered.
        effects: what tools read and write; extend `BUILTIN` to declare more. With `BUILTIN` itself
            what a result tells is worked out once in a session, else in every turn.
    """
    if effects is not BUILTIN:
        return _stale(trajectory, effects)
    return remembered(trajectory, "stale", lambda: _stale(trajectory, BUILTIN))


def _stale(trajectory: Trajectory, effects: Mapping[str, ToolEffects]) -> tuple[Stale, ...]:
    watch = _Watch()
    first_directory = _usual_directory(trajectory.original)
    directory = first_directory
    for result, original in zip(trajectory.tool_results, originals(trajectory), strict=True):
        did = _did(original, effects, directory)
        watch.take(result, original, did)
        directory = first_directory if did.fresh else did.told or did.effects.directory
    return watch.found()


class _Did(NamedTuple):
    """What one call did, as its result tells.

    Attributes:
        effects: what it read and wrote.
        shown, runs: the pieces its result shows, and those of them that are outputs of commands.
        failed: why it failed, if it did.
        nothing: the call was not made out, or nothing is left of its result.
        fresh: it ran in a shell of its own.
        told: the working directory named at the output's end.
    """

    effects: Effects
    shown: tuple[Piece, ...]
    runs: tuple[Piece, ...]
    failed: Failure | None
    nothing: bool
    fresh: bool
    told: str


def _did(original: ToolResult, effects: Mapping[str, ToolEffects], directory: str) -> _Did:
    if effects is not BUILTIN:
        return _make_out(original, effects, directory)
    key = ("did", directory)
    return remembered(original, key, lambda: _make_out(original, BUILTIN, directory))


def _make_out(original: ToolResult, effects: Mapping[str, ToolEffects], directory: str) -> _Did:
    done = effects_of(original, effects, directory)
    failed = failure(original)
    shown = _shown(done, original.content)
    return _Did(
        effects=done,
        shown=shown,
        runs=tuple(piece for piece in shown if isinstance(piece, Run)),
        failed=failed,
        nothing=is_stub(original.content) or bool(failed and failed.kind == "malformed_call"),
        fresh=_FRESH_SHELL.match(original.content) is not None,
        told=_told(original),
    )


_Event = tuple[StaleKind, int, str]


@dataclass
class _Open:
    """A result some of whose pieces are still current."""

    result: ToolResult
    current: tuple[Piece, ...]
    last: _Event | None = None

    def lose(self, superseded: Callable[[Piece], bool], event: _Event) -> None:
        """Take away the pieces that are superseded by what happened."""
        left = tuple(piece for piece in self.current if not superseded(piece))
        if len(left) < len(self.current):
            self.current, self.last = left, event


@dataclass
class _Watch:
    """Results in order, and where the pieces are that are still current."""

    results: list[_Open] = field(default_factory=list)
    reads: dict[str, list[_Open]] = field(default_factory=dict)
    runs: dict[Hashable, list[_Open]] = field(default_factory=dict)
    scripts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def take(self, result: ToolResult, original: ToolResult, did: _Did) -> None:
        """Note what one more result supersedes and shows."""
        if did.nothing:
            return
        done, failed = did.effects, did.failed
        self.scripts.update(done.scripts)
        for path in done.early_writes if failed else (*done.writes, *self._script_writes(done)):
            self._supersede_writes(path, result.index)
        if failed and not did.runs:
            # What it printed is an error, no part of a file.
            return
        in_view = result.content == original.content
        if in_view and not (failed and failed.kind == "timeout"):
            for piece in did.runs if failed else did.shown:
                self._supersede(piece, result.index)
        if did.shown and not is_stub(result.content):
            self._add(_Open(result, did.shown))

    def found(self) -> tuple[Stale, ...]:
        """The results of which no piece is current any more."""
        return tuple(
            Stale(entry.result, *entry.last)
            for entry in self.results
            if entry.last is not None and not entry.current
        )

    def _script_writes(self, done: Effects) -> Iterable[str]:
        for script, directory in done.runs:
            for path in self.scripts.get(script, ()):
                yield resolve(path, directory)

    def _add(self, entry: _Open) -> None:
        self.results.append(entry)
        for piece in entry.current:
            if isinstance(piece, Read):
                self.reads.setdefault(piece.path, []).append(entry)
            else:
                self.runs.setdefault(piece.key, []).append(entry)

    def _supersede_writes(self, path: str, index: int) -> None:
        inside = path.rstrip("/") + "/"
        for known in [p for p in self.reads if p == path or p.startswith(inside)]:
            for entry in self.reads.pop(known):
                entry.lose(partial(_is_of, known), ("edited", index, known))

    def _supersede(self, piece: Piece, index: int) -> None:
        if isinstance(piece, Read):
            entries = self.reads.get(piece.path, [])
            event: _Event = ("reread", index, piece.path)
        else:
            entries, event = self.runs.get(piece.key, []), ("rerun", index, "")
        for entry in entries:
            entry.lose(partial(covers, piece), event)


def _is_of(path: str, piece: Piece) -> bool:
    return isinstance(piece, Read) and piece.path == path


def _shown(done: Effects, content: str) -> tuple[Piece, ...]:
    """The pieces a result shows; file parts are marked where the harness cut them short."""
    reads = any(isinstance(piece, Read) for piece in done.shows)
    if not reads or not (_CLIPPED.search(content) or is_cut(content)):
        return done.shows
    return tuple(replace(p, clipped=True) if isinstance(p, Read) else p for p in done.shows)


def _told(result: ToolResult) -> str:
    """The working directory an output names at its end; "" when it names none."""
    found = _TOLD_DIRECTORY.findall(result.content[-_DIRECTORY_CHARS:])
    return next(filter(None, found[-1]), "") if found else ""


def _usual_directory(history: Trajectory) -> str:
    """Where a harness that gives every command a fresh shell starts it; "" when nothing tells.

    Agents in fresh shells keep writing `cd /repo && ...`: the folder they most often name is
    taken for the one they start in.
    """
    results = history.tool_results
    if not any(_FRESH_SHELL.match(result.content) for result in results[:1]):
        return ""
    folders: Counter[str] = Counter()
    for call in history.tool_calls:
        command = invocation(call).arguments.get("command")
        if isinstance(command, str) and command.startswith("cd /"):
            lines = pipelines(command)
            folders.update(lines[0].commands[0].words[1:2] if lines else ())
    return folders.most_common(1)[0][0] if folders else ""
