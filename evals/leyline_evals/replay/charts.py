"""The plots of a replay's report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leyline_evals.replay.arms import Arm
from leyline_evals.replay.records import ArmRun, TurnRow
from leyline_evals.replay.report import ArmFigures
from leyline_evals.replay.svg import Frame, Svg

__all__ = ["compute", "computed", "context", "first_token", "timeline"]

WIDTH = 940
LEFT, RIGHT = 84, 926
COMPUTED = ("recomputed", "prefilled")
KINDS = ("exact", "spliced", *COMPUTED)

Run = Mapping[Arm, ArmRun]


def compute(made: Mapping[Arm, ArmFigures]) -> str:
    """One bar an arm: the tokens it computed for all prompts."""
    high = max((one.compute_tokens for one in made.values()), default=0)
    svg = Svg(WIDTH, 30 * len(made) + 4, "Prompt tokens computed in each arm")
    frame = Frame(116, 0, RIGHT - 150, svg.height, high, 1)
    for number, (arm, one) in enumerate(made.items()):
        y = 30 * number + 4
        svg.text(108, y + 15, arm.value, "name", "end")
        x = frame.left
        for kind in COMPUTED:
            tokens = getattr(one, f"{kind}_tokens")
            width = frame.x(tokens) - frame.left
            svg.rect(x, y, width, 21, kind, f"{arm.value}: {kind} {tokens:,}")
            x += width
        ratio = "" if one.compute_ratio is None else f"  ({one.compute_ratio:.2f} ×)"
        svg.text(x + 6, y + 15, f"{one.compute_tokens:,}{ratio}", "value")
    return str(svg)


def context(run: Run) -> str:
    """The prompt's length by turn, as it would be unedited and as the policy leaves it."""
    svg = Svg(WIDTH, 170, "Length of the prompt by turn, unedited and edited")
    whole = run.get(Arm.APPEND_ONLY)
    edited = next((played for arm, played in run.items() if arm.edits), None)
    frame = Frame(LEFT, 18, RIGHT, 138, _turns(run), _highest(run))
    frame.y_axis(svg)
    for played, cls in ((whole, "cut"), (edited, "kept")):
        if played is not None:
            points = [(frame.x(row.turn - 0.5), frame.y(row.prompt)) for row in played.rows]
            svg.area(points, frame.bottom, f"{cls} area")
            svg.path(points, f"{cls} edge")
    for row in edited.rows if edited is not None else ():
        if row.edits:
            svg.mark(frame.x(row.turn - 0.5), 14, "edit", f"turn {row.turn}: {_edits(row)}")
    frame.x_axis(svg, "turn")
    return str(svg)


def timeline(run: Run) -> str:
    """A strip an arm, a bar a turn: where each token of the prompt came from."""
    return _strips(run, KINDS, "Where the tokens of each prompt came from")


def computed(run: Run) -> str:
    """The same of the computed tokens alone."""
    return _strips(run, COMPUTED, "Prompt tokens computed at each turn")


def _strips(run: Run, kinds: Sequence[str], label: str) -> str:
    strip, gap = 74, 20
    svg = Svg(WIDTH, (strip + gap) * len(run) + 22, label)
    rows = (row for played in run.values() for row in played.rows)
    high = max((sum(getattr(row, kind) for kind in kinds) for row in rows), default=1)
    for number, (arm, played) in enumerate(run.items()):
        top = number * (strip + gap) + 14
        frame = Frame(LEFT, top, RIGHT, top + strip, _turns(run), high)
        frame.y_axis(svg, at_most=2)
        svg.text(LEFT, top - 4, arm.value, "name")
        for row in played.rows:
            _bar(svg, frame, arm, row, kinds)
        if played.ended is not None:
            x = frame.x(len(played.rows))
            svg.line(x, frame.top, x, frame.bottom, "ended")
            svg.text(min(x + 4, RIGHT - 90), frame.top + 10, "ended here", "tick")
        if number == len(run) - 1:
            frame.x_axis(svg, "turn")
    return str(svg)


def _bar(svg: Svg, frame: Frame, arm: Arm, row: TurnRow, kinds: Sequence[str]) -> None:
    width = frame.x(1) - frame.x(0)
    said = ", ".join(f"{kind} {getattr(row, kind):,}" for kind in KINDS if getattr(row, kind))
    title = f"{arm.value}, turn {row.turn}: {said}; {_edits(row)}"
    below = 0
    for kind in kinds:
        tokens = getattr(row, kind)
        if tokens:
            y = frame.y(below + tokens)
            left = frame.x(row.turn - 1) + width * 0.08
            svg.rect(left, y, width * 0.84, frame.y(below) - y, kind, title)
            below += tokens


def first_token(run: Run) -> str:
    """Milliseconds to the first token by turn, a line an arm; "" where no model ran."""
    times = {arm: _timed(played.rows) for arm, played in run.items()}
    high = max((ms for points in times.values() for _, ms in points), default=0.0)
    if not high:
        return ""
    svg = Svg(WIDTH, 230, "Time to the first token by turn")
    frame = Frame(LEFT, 12, RIGHT, 198, _turns(run), high)
    edited = {row.turn for played in run.values() for row in played.rows if row.edits}
    for turn in edited:
        svg.rect(
            frame.x(turn - 1), frame.top, frame.x(1) - frame.x(0), 198 - frame.top, "edited-turn"
        )
    frame.y_axis(svg, " ms")
    for arm, points in times.items():
        svg.path([(frame.x(turn - 0.5), frame.y(ms)) for turn, ms in points], f"arm {arm.value}")
    for arm, points in times.items():
        for turn, ms in points:
            title = f"{arm.value}, turn {turn}: {ms:,.0f} ms"
            svg.dot(frame.x(turn - 0.5), frame.y(ms), 2.4, f"dot {arm.value}", title)
    frame.x_axis(svg, "turn")
    return str(svg)


def _timed(rows: Sequence[TurnRow]) -> list[tuple[int, float]]:
    return [(row.turn, row.ttft_ms) for row in rows if row.ttft_ms is not None]


def _turns(run: Run) -> int:
    return max((len(played.rows) for played in run.values()), default=1) or 1


def _highest(run: Run) -> int:
    return max((row.prompt for played in run.values() for row in played.rows), default=1)


def _edits(row: TurnRow) -> str:
    return f"{row.edits} edit{'' if row.edits == 1 else 's'}"
