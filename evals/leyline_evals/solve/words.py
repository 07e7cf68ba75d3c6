"""What runs say in sentences, the same on the terminal, in the page and in the docs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from leyline_evals.solve.config import Registration, RunConfig
from leyline_evals.solve.report import ArmReport, Comparison, RunReport
from leyline_evals.solve.runner import Sat

__all__ = [
    "COLUMNS",
    "COMPARED",
    "carried",
    "count",
    "dollars",
    "failures",
    "found",
    "interval",
    "milliseconds",
    "percent",
    "plan",
    "points",
    "sat",
    "seconds",
    "seen",
    "setting",
]

COLUMNS = {
    "solved": "episodes that solved their task, of those that ended without an error",
    "95 %": "Wilson interval; it takes episodes for independent, which seeds of a task are not",
    "rereads": "reads of a file read before and not written since",
    "prefilled": "prompt tokens prefilled; compute: with those that repair computed again",
    "spliced": "prompt tokens reused behind an edit",
    "carried out": "edits by the mode that the engine used, and the reasons it gave",
    "first token": "milliseconds to a reply's first token, median and p99 of all turns",
    "/ solved": "what all episodes took, for each solved one: tokens, wall time, dollars",
}

COMPARED = {
    "difference": "of the solve rates in points, over the tasks and seeds that both arms finished",
    "95 %": "bootstrap over whole tasks; with few tasks it is too narrow",
    "p": "exact permutation of the arms within tasks; the first line is the registered comparison",
    "Holm": "p of the secondary comparisons, corrected for their number",
    "McNemar": "exact, on tasks that most seeds of one arm solve (+ gained, - lost)",
}


def plan(config: RunConfig) -> Iterator[str]:
    """What is going to be run, and what it can show."""
    counted = _shape(len(config.tasks), len(config.seeds), len(config.arms))
    episodes = _many(config.size, "episode")
    yield f"{config.driver.name}: {counted}, {episodes}; model {config.model.name}"
    for arm in config.arms:
        yield f"  {arm.name}"
    registered = config.registration
    if registered is None:
        yield "One arm: its rate is measured, and compared to nothing. --policy adds arms."
        return
    yield f"Primary comparison: {registered.second} against {registered.first}."
    yield seen(len(config.tasks), len(config.seeds), registered)


def seen(tasks: int, seeds: int, registered: Registration) -> str:
    """The differences that a plan can see."""
    shape = f"With {_many(tasks, 'task')} x {_many(seeds, 'seed')}"
    given = (
        f"{registered.power:.0%} of the time, at the level {registered.alpha:g}, if about "
        f"{registered.rate:.0%} are solved, episodes of a task correlate by {registered.icc:g} and "
        "tasks differ in the effect, too"
    )
    if registered.detectable is None:
        if 2 * 0.5**tasks > registered.alpha:
            why = f"the exact test of {_many(tasks, 'task')} is never below {2 * 0.5**tasks:.3g}"
            return f"{shape} no difference can be seen, however large: {why}. Add tasks."
        return f"{shape} no difference is seen ({given}). Add tasks."
    return f"{shape} you can see {_directions(registered)} ({given})."


def _directions(registered: Registration) -> str:
    """A rise, a fall, or both; of a run that an earlier Leyline planned, neither is known."""
    each = (("rise", registered.rise, 1), ("fall", registered.fall, -1))
    told = [
        f"a {name} of {least * 100:.0f} points or more, to {registered.rate + sign * least:.0%}"
        for name, least, sign in each
        if least is not None
    ]
    if not told:
        return f"differences above {(registered.detectable or 0) * 100:.0f} points"
    missing = [f", but no {name}, however large" for name, least, _ in each if least is None]
    return ", or ".join(told) + "".join(missing)


def sat(path: Path, episodes: int, what: Sat) -> Iterator[str]:
    """What a sitting did, and what to do next."""
    done = _many(what.done, "episode")
    yield f"{done} done in this sitting; {episodes - what.left} of {episodes} count."
    if what.cut:
        under_way = f"{_many(what.cut, 'episode')} {'was' if what.cut == 1 else 'were'} under way"
        yield f"{under_way} when the time was up; the next sitting begins such anew."
    if what.errors:
        yield (
            f"{what.errors} ended in an error and count{'s' if what.errors == 1 else ''} for "
            "nothing, most often: "
            f"{what.commonest:.300}; error.txt in their folders says more, and --retry-errors runs "
            "them again."
        )
    yield from failures(what.failed)
    if what.left > what.errors:
        yield f"Go on: leyline eval resume {path}"
    yield f"Report: leyline eval report {path}"


def failures(failed: Mapping[str, int]) -> Iterator[str]:
    """Policies that raised."""
    for what, turns in failed.items():
        policy, _, error = what.partition(": ")
        yield f"the policy {policy} failed in {_many(turns, 'turn')}: {error}"


def setting(run: RunReport) -> str:
    """What was run."""
    shape = _shape(len(run.tasks), run.seeds, len(run.arms))
    done = f"{run.finished} of {run.planned} episodes in {_many(run.sittings, 'sitting')}"
    return f"{run.run}: {run.benchmark}, {run.model}, {shape}, {done}"


def found(run: RunReport) -> Iterator[str]:
    """What the registered comparison shows."""
    registered, primary = run.registration, run.primary
    if registered is None or primary is None:
        return
    yield (
        f"Registered on {run.created[:10]} as sha256 {run.sha256[:16]}...: {registered.second} "
        f"against {registered.first}, {registered.test}."
    )
    yield _shown(primary, registered.alpha, due=run.due)
    if run.due and run.errors:
        yield (
            f"It is not final: {_many(run.errors, 'episode')} in error may still be run again, by "
            "--retry-errors."
        )
    yield seen(len(run.tasks), run.seeds, registered)


def _shown(one: Comparison, alpha: float, *, due: bool) -> str:
    if one.difference is None:
        return "No pair of episodes is finished yet."
    told = (
        f"{one.second} solves {percent(one.second_rate)} and {one.first} {percent(one.first_rate)} "
        f"of {one.pairs} pairs: {points(one.difference)} points ({points(one.low)} to "
        f"{points(one.high)}), p = {one.p:.3f}."
    )
    if not due:
        return f"{told} The run is not complete: this is a look in between, not the test."
    if one.p < alpha:
        return f"{told} At the level {alpha:g} they differ."
    return f"{told} No difference is shown at the level {alpha:g}, nor is it shown that none is."


def carried(arm: ArmReport) -> str:
    """In which modes an arm's edits were carried out, its own first, and why: "repair 9, ..."."""
    own = arm.mechanism.value
    modes = sorted({own: 0, **arm.modes}.items(), key=lambda mode: mode[0] != own)
    reasons = sorted(arm.reasons.items(), key=lambda reason: -reason[1])
    told = ", ".join(f"{mode} {n:,}" for mode, n in modes)
    return told + (f" ({', '.join(f'{why} {n:,}' for why, n in reasons)})" if reasons else "")


def percent(rate: float | None) -> str:
    """A rate."""
    return "" if rate is None else f"{rate:.1%}"


def interval(arm: ArmReport) -> str:
    """Of its rate; "-" where no episode is finished."""
    return f"{arm.low:.0%} to {arm.high:.0%}" if arm.episodes else "-"


def points(difference: float | None) -> str:
    """A difference of rates."""
    return "" if difference is None else f"{difference * 100:+.1f}"


def count(tokens: float | None) -> str:
    """Tokens; "-" where nothing was solved."""
    return "-" if tokens is None else f"{tokens:,.0f}"


def milliseconds(time: float | None) -> str:
    """A time that was measured, or nothing."""
    if time is None:
        return ""
    return f"{time:,.0f} ms" if time < 9_999.5 else f"{time / 1e3:,.1f} s"


def seconds(time: float | None) -> str:
    """Wall time; "-" where nothing was solved."""
    if time is None:
        return "-"
    return f"{time:,.1f} s" if time < 600 else f"{time / 60:,.0f} min"


def dollars(cost: float | None) -> str:
    """A price, or nothing where none is known."""
    return "" if cost is None else f"${cost:,.4f}" if cost < 1 else f"${cost:,.2f}"


def _shape(tasks: int, seeds: int, arms: int) -> str:
    return f"{_many(tasks, 'task')} x {_many(seeds, 'seed')} x {_many(arms, 'arm')}"


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
