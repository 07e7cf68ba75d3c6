"""The plots of a report."""

from __future__ import annotations

from collections.abc import Sequence

from leyline_evals.replay.svg import Svg, ticks
from leyline_evals.solve.report import ArmReport, Comparison, RunReport

__all__ = ["differences", "first_token", "rates", "tasks", "tokens"]

WIDTH, LEFT, RIGHT = 940.0, 330.0, 860.0
ROW = 30.0
NAME_CHARS = 50
SHADES = 5
TASKS_DRAWN = 200


def rates(run: RunReport) -> str:
    """A dot an arm: its solve rate, with the Wilson interval."""
    svg = Svg(WIDTH, ROW * len(run.arms) + 26, "Solve rate of each arm with its interval")
    _axis(svg, 0.0, 1.0, [i / 5 for i in range(6)], "{:.0%}")
    for number, arm in enumerate(run.arms):
        y = _row(svg, number, arm.arm)
        title = f"{arm.arm}: {arm.solved} of {arm.episodes}"
        _range(svg, y, _x(arm.low), _x(arm.high), f"{title}, {arm.low:.1%} to {arm.high:.1%}")
        if arm.rate is not None:
            svg.dot(_x(arm.rate), y, 4.5, "point", title)
            svg.text(RIGHT + 12, y + 4, f"{arm.rate:.1%}", "value")
    return str(svg)


def differences(run: RunReport) -> str:
    """A line a comparison: the difference of the rates, the registered one first."""
    compared = ([run.primary] if run.primary else []) + run.secondary
    known = [one for one in compared if one.difference is not None]
    if not known:
        return ""
    svg = Svg(WIDTH, ROW * len(known) + 26, "Differences of solve rates with their intervals")
    _axis(svg, -1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0], "{:+.0%}")
    zero = _x(0.5)
    svg.line(zero, 0, zero, svg.height - 20, "zero")
    for number, one in enumerate(known):
        _difference(svg, number, one, is_primary=one is run.primary)
    return str(svg)


def _difference(svg: Svg, number: int, one: Comparison, *, is_primary: bool) -> None:
    assert one.difference is not None
    name = f"{one.second} - {one.first}"
    y = _row(svg, number, name)
    title = f"{name}: {one.difference:+.1%}, p {one.p:.3f}"
    _range(svg, y, _x((one.low + 1) / 2), _x((one.high + 1) / 2), title)
    svg.dot(_x((one.difference + 1) / 2), y, 4.5, "primary" if is_primary else "point", title)
    svg.text(RIGHT + 12, y + 4, f"{one.difference * 100:+.1f}", "value")


def tokens(run: RunReport) -> str:
    """A bar an arm: prompt tokens computed for each solved task; "" where none is solved."""
    high = max((arm.compute_per_solved or 0.0 for arm in run.arms), default=0.0)
    if not high:
        return ""
    svg = Svg(WIDTH, ROW * len(run.arms) + 4, "Prompt tokens computed for each solved task")
    for number, arm in enumerate(run.arms):
        y = _row(svg, number, arm.arm)
        if arm.compute_per_solved is None or arm.prefilled_per_solved is None:
            svg.text(LEFT, y + 4, "nothing solved", "tick")
            continue
        x = LEFT
        parts = (
            ("prefilled", arm.prefilled_per_solved),
            ("recomputed", arm.compute_per_solved - arm.prefilled_per_solved),
        )
        for kind, many in parts:
            width = (RIGHT - LEFT) * many / high
            svg.rect(x, y - 10, width, 20, kind, f"{arm.arm}: {kind} {many:,.0f}")
            x += width
        svg.text(RIGHT + 12, y + 4, f"{arm.compute_per_solved:,.0f}", "value")
    return str(svg)


def first_token(run: RunReport) -> str:
    """A line an arm: time to the first token, from the median to p99; "" where none is timed."""
    timed = [arm for arm in run.arms if arm.ttft_p50 is not None]
    high = max((arm.ttft_p99 or 0.0 for arm in timed), default=0.0)
    if not high:
        return ""
    svg = Svg(WIDTH, ROW * len(timed) + 26, "Milliseconds to the first token, median and p99")
    _axis(svg, 0.0, high, ticks(high, 5), "{:,.0f} ms")
    for number, arm in enumerate(timed):
        _timed(svg, number, arm, high)
    return str(svg)


def _timed(svg: Svg, number: int, arm: ArmReport, high: float) -> None:
    assert arm.ttft_p50 is not None
    assert arm.ttft_p99 is not None
    y = _row(svg, number, arm.arm)
    title = f"{arm.arm}: median {arm.ttft_p50:,.0f} ms, p99 {arm.ttft_p99:,.0f} ms"
    _range(svg, y, _x(arm.ttft_p50 / high), _x(arm.ttft_p99 / high), title)
    svg.dot(_x(arm.ttft_p50 / high), y, 4.5, "point", title)


def tasks(run: RunReport) -> str:
    """A row an arm, a column a task: the darker, the more of its episodes solved it."""
    shown = run.tasks[:TASKS_DRAWN]
    svg = Svg(WIDTH, ROW * len(run.arms) + 4, "Which tasks each arm solved")
    width = min(24.0, (RIGHT - LEFT) / max(1, len(shown)))
    for number, arm in enumerate(run.arms):
        y = _row(svg, number, arm.arm)
        for place, task in enumerate(shown):
            of, solved = task.episodes.get(arm.arm, 0), task.solved.get(arm.arm, 0)
            shade = f"s{round(solved / of * (SHADES - 1))}" if of else "none"
            title = f"{task.task}, {arm.arm}: {solved} of {of}"
            svg.rect(LEFT + place * width, y - 11, width * 0.9, 22, shade, title)
    return str(svg)


def _x(part: float) -> float:
    return LEFT + (RIGHT - LEFT) * part


def _row(svg: Svg, number: int, name: str) -> float:
    """The middle of a row, its name written beside it."""
    y = ROW * number + 15
    short = name if len(name) <= NAME_CHARS else f"...{name[-NAME_CHARS:]}"
    svg.text(LEFT - 10, y + 4, short, "name", "end")
    return y


def _range(svg: Svg, y: float, low: float, high: float, title: str) -> None:
    svg.rect(low, y - 1.5, max(1.0, high - low), 3, "range", title)


def _axis(svg: Svg, low: float, high: float, at: Sequence[float], form: str) -> None:
    """Grid lines and labels below."""
    for value in at:
        x = _x((value - low) / (high - low))
        svg.line(x, 0, x, svg.height - 20, "grid")
        svg.text(x, svg.height - 6, form.format(value), "tick", "middle")
