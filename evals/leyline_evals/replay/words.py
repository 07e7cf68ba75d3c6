"""What a replay's figures mean, in plain words; the table and the page say the same."""

from __future__ import annotations

from leyline_evals.replay.arms import Arm
from leyline_evals.replay.report import ArmFigures, ReplayReport, Spread

__all__ = ["ARMS", "CONTROLS", "TERMS", "TIMES", "count", "milliseconds", "seen", "setting"]

ARMS = {
    Arm.APPEND_ONLY: "nothing is edited: the conversation only grows",
    Arm.PREFIX_CACHE: "the policy's edits on an ordinary server: a prefix cache and nothing else",
    Arm.FORGET: "the edits as directives; whatever stands behind an edit is computed again",
    Arm.AMORTIZE: "the edits as directives; what stands behind an edit is kept and moved",
    Arm.REPAIR: "like amortize, and the kept tokens that feel the edit most are computed again",
}
TERMS = {
    "exact": "cached tokens reused as they were",
    "spliced": "cached tokens behind an edit, reused at their new place",
    "recomputed": "cached tokens computed again on purpose (repair)",
    "prefilled": "tokens computed because no cache held them",
    "compute": "recomputed + prefilled; × says how many times append_only's",
    "hit rate": "exact + spliced, as a part of all prompt tokens",
    "first token": "median time from the request to the first logits; p99; after an edit",
    "splice, copy": "median time of rearranging the cache, and of a contiguous copy for the CPU",
}
TIMES = ("first token", "splice, copy")
CONTROLS = {
    "noise_floor": "the honest re-prefill once more, in other chunks: what rounding alone does",
    "edit_undone": "the whole history, as if nothing had been edited",
}


def count(number: int) -> str:
    """A number of tokens in seven characters at most."""
    if number < 100_000:
        return f"{number:,}"
    return f"{number / 1e3:,.1f} k" if number < 999_950 else f"{number / 1e6:,.2f} M"


def milliseconds(time: float) -> str:
    """A time in nine characters at most."""
    return f"{time:,.0f} ms" if time < 9_999.5 else f"{time / 1e3:,.1f} s"


def setting(report: ReplayReport) -> str:
    """One line: what was replayed, by what, on what."""
    config, machine = report.config, report.machine
    turns = sum(run.turns for run in report.runs)
    ran = (
        f"tokens of {config.model} counted, no model ran"
        if config.tokens_only
        else f"{config.model} in {machine.dtype} on {machine.cpu}, {machine.threads} threads"
    )
    return (
        f"policy {config.policy}; {_many(len(report.runs), 'run')}, {_many(turns, 'turn')}; {ran}"
    )


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def seen(report: ReplayReport) -> list[str]:
    """What was seen, an entry for each arm that spliced; only what the figures say."""
    other = report.sooner_than
    if other is None or other not in report.arms:
        return []
    found = []
    for arm, one in report.arms.items():
        if arm.splices and one.spliced_tokens:
            said = [*_sooner(arm, one, other), _less(arm, one, other, report.arms[other])]
            found.append(" ".join(said))
    return found


def _sooner(arm: Arm, one: ArmFigures, other: Arm) -> list[str]:
    times = one.sooner
    if times is None:
        return []
    direction = "sooner" if times.p50 >= 1 else "later"
    said = (
        f"After an edit the first token came {_times(times)} times {direction} with {arm.value} "
        f"than with {other.value} (median of {_many(times.n, 'turn')})."
    )
    quiet = one.sooner_without_edit
    if quiet is not None:
        said += f" On turns without an edit the same ratio was {quiet.p50:.2f}."
    return [said]


def _times(times: Spread) -> str:
    def show(value: float) -> str:
        return f"{value if times.p50 >= 1 else 1 / value:.1f}"

    low, high = sorted((show(times.p25), show(times.p75)), key=float)
    return f"{show(times.p50)} ({low} to {high})"


def _less(arm: Arm, one: ArmFigures, other: Arm, rival: ArmFigures) -> str:
    part = one.compute_tokens / rival.compute_tokens
    return (
        f"Over all turns {arm.value} computed {one.compute_tokens:,} prompt tokens, "
        f"{other.value} {rival.compute_tokens:,}: {part:.0%}."
    )
