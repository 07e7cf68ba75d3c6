"""What a reader of a run must know beside its figures, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from leyline_evals.solve import words
from leyline_evals.solve.driver import Ended
from leyline_evals.solve.folder import Sitting
from leyline_evals.solve.report import ArmReport, RunReport

__all__ = ["notes", "problems"]

FLOOR, CEILING = 0.05, 0.95
OVERHEAD = 0.02
UNEVEN = 0.05
AS_SAID = 0.8
"""An arm of which a smaller part of the edits is carried out in its mode is another arm."""
SPLICING = ("amortize", "repair")


def notes(run: RunReport, sittings: Sequence[Sitting]) -> list[str]:
    """What to read the figures with."""
    return [*_progress(run), *_effects(run), *_endings(run), *_changes(sittings), *_costs(run)]


def problems(run: RunReport) -> list[str]:
    """What makes an arm not be what its name says."""
    found: list[str] = []
    for arm in run.arms:
        if arm.declares:
            found += _otherwise(arm)
        if arm.mechanism.value == "plain" and arm.exact_tokens:
            found.append(f"{arm.arm}: {arm.exact_tokens:,} tokens came from a cache all the same")
        found += [f"{arm.arm}: {said}" for said in words.failures(arm.failed)]
        if arm.policy != "keep_all" and arm.episodes and not arm.edits and not arm.failed:
            found.append(
                f"{arm.arm}: the policy edited nothing; the arm differs from keep_all by chance "
                "alone"
            )
    return found


def _otherwise(arm: ArmReport) -> Iterator[str]:
    """Where edits were not carried out as the mechanism says."""
    own, total = arm.modes.get(arm.mechanism.value, 0), sum(arm.modes.values())
    if arm.mechanism.value in SPLICING and not arm.spliced_tokens:
        why = ", ".join(f"{reason} {n}" for reason, n in arm.reasons.items())
        told = f" (reasons: {why})" if why else ""
        yield f"{arm.arm}: {arm.edits} edits, and nothing was spliced{told}"
    elif own < AS_SAID * total:
        yield (
            f"{arm.arm}: only {own / total:.0%} of its edits were carried out as its mechanism "
            f"says: {words.carried(arm)}"
        )


def _progress(run: RunReport) -> Iterator[str]:
    if not run.due:
        left = run.planned - run.finished - run.errors
        yield (
            f"{left} of {run.planned} episodes are not run yet: the registered comparison is not "
            "due, and what it shows now is a look in between"
        )
    if run.errors:
        by_arm = ", ".join(
            f"{arm.arm} {arm.ended[Ended.ERROR]}" for arm in run.arms if Ended.ERROR in arm.ended
        )
        yield (
            f"{run.errors} episodes ended in an error and are in no figure, nor are the episodes "
            f"paired with them in any comparison ({by_arm})"
        )
    if run.retried:
        yield f"{run.retried} episodes were run again after an error; an earlier report lacks them"


def _effects(run: RunReport) -> Iterator[str]:
    rates = [arm.rate for arm in run.arms if arm.rate is not None]
    if not rates:
        return
    if max(rates) < FLOOR:
        yield f"a floor effect: no arm solves {FLOOR:.0%}; these tasks tell the arms not apart"
    if min(rates) > CEILING:
        yield f"a ceiling effect: every arm solves over {CEILING:.0%}; harder tasks would tell more"


def _endings(run: RunReport) -> Iterator[str]:
    for ended, what in ((Ended.TIMEOUT, "ran out of time"), (Ended.LIMIT, "reached a limit")):
        shares = {arm.arm: _share(arm, ended) for arm in run.arms if arm.episodes}
        if not shares or not max(shares.values()):
            continue
        told = ", ".join(f"{arm} {share:.0%}" for arm, share in shares.items())
        uneven = max(shares.values()) - min(shares.values()) > UNEVEN
        warning = ": part of the difference is the limit's" if uneven else ""
        yield f"episodes that {what} count as not solved ({told}){warning}"


def _share(arm: ArmReport, ended: Ended) -> float:
    return arm.ended.get(ended, 0) / arm.episodes


def _changes(sittings: Sequence[Sitting]) -> Iterator[str]:
    """What was not the same in every sitting."""
    names = sorted({name for sitting in sittings for name in sitting.versions})
    for name in names:
        values = list(dict.fromkeys(sitting.versions.get(name, "none") for sitting in sittings))
        if len(values) > 1:
            yield f"{name} changed between sittings: {', '.join(values)}"
    workers = sorted({sitting.workers for sitting in sittings})
    if len(workers) > 1:
        yield f"sittings ran {' and '.join(map(str, workers))} episodes at once: times differ by it"


def _costs(run: RunReport) -> Iterator[str]:
    for arm in run.arms:
        if arm.skipped:
            yield f"{arm.arm}: {arm.skipped} edits or policies were not taken; the journals say why"
        if arm.overhead is not None and arm.overhead > OVERHEAD and arm.wall_seconds > 60:
            yield f"{arm.arm}: {arm.overhead:.1%} of the time was neither the model's nor a tool's"
