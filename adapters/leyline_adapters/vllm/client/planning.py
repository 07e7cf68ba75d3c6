"""Planning: a lowered commit as requests that vLLM can carry out. Pure; knows no server.

A connector may claim one contiguous run of a prompt, from its beginning on. So whatever is new
*before* something kept, a replacement or the window of a REPAIR, is computed by a request of its
own first, a *stage*: its prompt ends where the new tokens end, and what it computed is a source for
the stage behind it. The last stage is the turn itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from leyline_agent.directive import Directive, Mode, kept_runs
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Reason

__all__ = ["Limits", "Plan", "Reuse", "Stage", "plan"]


@dataclass(frozen=True)
class Limits:
    """What is worth a request of its own.

    Attributes:
        window: tokens REPAIR computes again at the beginning of each reused run.
        gate_tokens: with fewer kept tokens behind an edit, all of them are computed again.
        stage_tokens: a stage costs about as much as computing so many tokens: shorter kept runs
            between new tokens are computed with them.
        stages: at most so many before the turn itself.
    """

    window: int = 16
    gate_tokens: int = 16
    stage_tokens: int = 48
    stages: int = 8


@dataclass(frozen=True)
class Reuse:
    """Tokens [start, end) of the base version stand at `at` in the prompt."""

    start: int
    end: int
    at: int

    @property
    def stop(self) -> int:
        """One past the last of them, in the prompt."""
        return self.at + self.end - self.start


@dataclass(frozen=True)
class Stage:
    """A request whose prompt is the turn's first `end` tokens.

    Attributes:
        end: tokens of its prompt.
        before: how many of them the stage before it has computed or reused; 0 without one.
        reused: runs of the base version, from `before` on, without gaps.
    """

    end: int
    before: int = 0
    reused: tuple[Reuse, ...] = ()

    @property
    def start(self) -> int:
        """The first token it computes."""
        return self.reused[-1].stop if self.reused else self.before


@dataclass(frozen=True)
class Plan:
    """How a prompt comes about.

    Attributes:
        stages: the last one is the turn itself.
        items: the lowering's, with the modes they are carried out in.
        again: runs of the prompt that the base version held and that are computed all the same,
            by kind ("boundary", "between"); half-open.
        kept: runs of the prompt that the base version held, before any FORGET.
        limits: what it was made by.
    """

    stages: tuple[Stage, ...]
    items: tuple[Lowered, ...]
    again: tuple[tuple[str, int, int], ...] = ()
    kept: tuple[tuple[int, int], ...] = ()
    limits: Limits = Limits()


@dataclass(frozen=True)
class _Piece:
    """Tokens [start, end) of the prompt; `source` is where they stand in the base, None if new."""

    start: int
    end: int
    source: int | None = None
    kind: str = ""

    @property
    def size(self) -> int:
        return self.end - self.start


def plan(previous: int, items: Sequence[Lowered], prompt: int, limits: Limits = Limits()) -> Plan:
    """The stages of a turn.

    Args:
        previous: tokens of the base version whose KV is held.
        items: the commit's directives in the base's coordinates, sorted, not overlapping.
        prompt: tokens of the turn's prompt.
        limits: what is worth a request.
    """
    settled = _gated(items, previous, limits)
    kept = list(_kept(settled, previous))
    pieces = _merged(_with_windows(settled, kept, prompt, limits.window), limits)
    again = tuple((p.kind, p.start, p.end) for p in pieces if p.kind)
    runs = tuple((p.start, p.end) for p in kept)
    return Plan(_stages(pieces, prompt), settled, again, runs, limits)


def kept_behind(items: Sequence[Lowered], index: int, previous: int) -> int:
    """Kept tokens behind item `index`, up to the next FORGET; 0 behind a FORGET."""
    if items[index].directive.mode is Mode.FORGET:
        return 0
    after = (i.directive for i in items[index + 1 :])
    stop = next((d.start for d in after if d.mode is Mode.FORGET), previous)
    start = items[index].directive.end
    runs = kept_runs([item.directive for item in items], previous)
    return sum(max(0, min(run.end, stop) - max(run.start, start)) for run in runs)


def _gated(items: Sequence[Lowered], previous: int, limits: Limits) -> tuple[Lowered, ...]:
    """Where next to nothing is kept behind an edit, compute it: cheaper, and stronger."""
    result: list[Lowered] = []
    forgetting = False
    for index, item in enumerate(items):
        if item.directive.mode is Mode.FORGET:
            forgetting = True
        elif forgetting:
            item = _forgotten(item, Reason.BEHIND_FORGET)
        elif (suffix := kept_behind(items, index, previous)) == 0:
            item = replace(item, reason=Reason.NO_SUFFIX)
        elif suffix <= limits.gate_tokens:
            item = _forgotten(item, Reason.COST_GATE)
            forgetting = True
        result.append(item)
    return tuple(result)


def _forgotten(item: Lowered, reason: Reason) -> Lowered:
    return replace(item, directive=item.directive._replace(mode=Mode.FORGET), reason=reason)


def _kept(items: Sequence[Lowered], previous: int) -> Iterable[_Piece]:
    """What of the base is kept before any FORGET, where it stands in the prompt."""
    directives: list[Directive] = [item.directive for item in items]
    stop = next((d.start for d in directives if d.mode is Mode.FORGET), previous)
    for run in kept_runs(directives, previous):
        end = min(run.end, stop)
        if run.start < end:
            yield _Piece(run.start + run.shift, end + run.shift, run.start)


def _with_windows(
    items: Sequence[Lowered], kept: Sequence[_Piece], prompt: int, window: int
) -> list[_Piece]:
    """Kept and new pieces of the whole prompt, left to right, windows of REPAIR among them."""
    repairs: set[int] = set()  # where runs begin, in the base, that are repaired
    for item in items:
        directive = item.directive
        if directive.mode is Mode.REPAIR or (
            directive.mode is Mode.AMORTIZE and directive.start in repairs
        ):  # an edit that follows at once stands before the same run
            repairs.add(directive.end)
    pieces: list[_Piece] = []
    cursor = 0
    for piece in kept:
        if piece.start > cursor:
            pieces.append(_Piece(cursor, piece.start))
        cut = piece.start
        if piece.source in repairs:
            cut = min(piece.end, piece.start + window)
            pieces.append(_Piece(piece.start, cut, None, "boundary"))
        if cut < piece.end:
            assert piece.source is not None
            pieces.append(_Piece(cut, piece.end, piece.source + cut - piece.start))
        cursor = piece.end
    if cursor < prompt:
        pieces.append(_Piece(cursor, prompt))
    return [piece for piece in pieces if piece.size]


def _merged(pieces: list[_Piece], limits: Limits) -> list[_Piece]:
    """Kept pieces behind new ones that are not worth a stage are computed again, shortest first."""
    while True:
        costly = [
            index
            for index, piece in enumerate(pieces)
            if index and piece.source is not None and pieces[index - 1].source is None
        ]
        if not costly:
            return pieces
        shortest = min(costly, key=lambda index: pieces[index].size)
        worth = pieces[shortest].size >= limits.stage_tokens
        if worth and len(costly) <= limits.stages:
            return pieces
        pieces[shortest] = replace(pieces[shortest], source=None, kind="between")


def _stages(pieces: Sequence[_Piece], prompt: int) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    reused: list[Reuse] = []
    before = 0
    for index, piece in enumerate(pieces):
        if piece.source is not None:
            reused.append(Reuse(piece.source, piece.source + piece.size, piece.start))
            continue
        if index + 1 < len(pieces) and pieces[index + 1].source is not None:
            stages.append(Stage(piece.end, before, tuple(reused)))
            before, reused = piece.end, []
    return (*stages, Stage(prompt, before, _short(reused, prompt)))


def _short(reused: Sequence[Reuse], prompt: int) -> tuple[Reuse, ...]:
    """Without the prompt's last token: something must be computed for the next one to be known."""
    if not reused or reused[-1].stop < prompt:
        return tuple(reused)
    last = replace(reused[-1], end=reused[-1].end - 1)
    return (*reused[:-1], last) if last.end > last.start else tuple(reused[:-1])
