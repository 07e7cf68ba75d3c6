"""What the names in a fidelity report mean, once, for table and page."""

from __future__ import annotations

from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.report import FidelityReport

__all__ = ["ARMS", "ORDERS", "setting", "verdict"]

ORDERS = {
    Order.EDIT_FIRST: "the edit first, then the newest observation computed fresh",
    Order.EDIT_LAST: "the newest observation was cached already when the edit came",
}
ARMS = {
    "noise": "honest in another chunking: what rounding does",
    "unedited": "the edit undone: what not editing would say",
    "unrotated": "keys left where they were: what positions are worth",
    "amortize": "AMORTIZE: nothing is computed again",
    "repair": "REPAIR with the engine's default set",
    "boundary_even": "as many tokens, all at the edits' boundaries",
    "blend_even": "as many tokens, where values deviate most (as CacheBlend chooses)",
}


def setting(report: FidelityReport) -> str:
    """What was measured, in a line."""
    config = report.config
    edits, runs = ("" if number == 1 else "s" for number in (report.edits, report.clusters))
    drawn = f"{report.edits} edit{edits} of {report.clusters} recorded run{runs}"
    asked = f"{report.generated} generated" if report.generated else ""
    what = " and ".join(filter(None, [drawn if report.edits else "", asked]))
    low, high = config.selection.tokens
    return (
        f"{config.model} in {report.machine.dtype}: {what}, prompts of {low:,} to {high:,} tokens"
        + ("" if report.complete else f"; not finished: {_missing(report)}")
    )


def _missing(report: FidelityReport) -> str:
    """How many there are of how many, and whether time would bring more."""
    done = report.edits or report.generated
    more = "" if report.available is None else ", there are no more"
    return f"{done} of {report.asked} edits asked for{more}"


def verdict(report: FidelityReport) -> list[str]:
    """What the model is fit for, and why not for what it is not."""
    lines = [
        f"An engine that reads this report carries edits out in {report.floor.value} at least."
    ]
    lines += [
        f"{one.mode.value}: {'fit' if one.fit else 'not fit'}; {'; '.join(one.why)}"
        for one in report.verdicts[:-1]
    ]
    return lines
