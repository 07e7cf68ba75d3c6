"""Prompts: what an engine is given to run, and the receipt of what that cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from leyline_agent.directive import Mode
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import EditReceipt, Receipt
from leyline_agent.serving.modes import Settled, kept_behind
from leyline_agent.serving.work import Cached

__all__ = ["Prompt", "Spent", "receipt_of"]


@dataclass(frozen=True)
class Prompt:
    """What to run.

    Attributes:
        tokens: the whole prompt.
        tenant: whose canonical KV may be reused.
        previous: the sequence the directives edit; None for a plain prompt.
        items: the directives and where they came from (`lowering.lower`).
        appended: new tokens behind everything edited.
        version: names this commit's edits: edit i is "version.i".
        policies: for receipts, the policy behind each edit.
        owner: the session that has it computed, "" for none.
    """

    tokens: list[int]
    tenant: str = ""
    previous: Cached | None = None
    items: Sequence[Lowered] = ()
    appended: int = 0
    version: int = 0
    policies: Sequence[str] = ()
    owner: str = ""


@dataclass(frozen=True)
class Spent:
    """What the engine did for a prompt.

    Attributes:
        fresh: positions that are computed.
        exact: kept tokens that absorbed no removed span.
        spliced: kept tokens that did.
        splice_us: microseconds of the whole splice.
    """

    fresh: Collection[int]
    exact: int
    spliced: int
    splice_us: float


def receipt_of(
    prompt: Prompt, previous_len: int, settled: Settled, spent: Spent, *, repair: str = "full"
) -> Receipt:
    """The figures of a run; `Receipt` checks that they add up."""
    fresh = set(spent.fresh)
    edit_us = spent.splice_us / max(1, len(settled.items))
    counts = {kind: len(fresh & where) for kind, where in settled.repair.kinds.items()}
    recomputed = sum(counts.values())
    directives = settled.directives
    return Receipt(
        version=prompt.version,
        previous=previous_len,
        prompt=len(prompt.tokens),
        reused_exact=spent.exact,
        reused_spliced=spent.spliced,
        recomputed=recomputed,
        prefilled=len(fresh) - recomputed,
        removed=sum(d.end - d.start for d in directives),
        inserted=sum(len(d.replacement) for d in directives),
        appended=len(prompt.tokens) if prompt.previous is None else prompt.appended,
        edits=_edit_receipts(prompt, previous_len, settled, counts, edit_us),
        repair=repair,
        splice_us=spent.splice_us,
    )


def _edit_receipts(
    prompt: Prompt, length: int, settled: Settled, counts: dict[str, int], microseconds: float
) -> tuple[EditReceipt, ...]:
    """One receipt a directive; the repair of a commit is told at its first REPAIR."""
    modes = [item.directive.mode for item in settled.items]
    repaired = modes.index(Mode.REPAIR) if Mode.REPAIR in modes else None
    return tuple(
        EditReceipt(
            id=f"{prompt.version}.{index}",
            start=item.directive.start,
            end=item.directive.end,
            inserted=len(item.directive.replacement),
            mode_asked=item.asked,
            mode_used=item.directive.mode,
            reason=item.reason,
            suffix=kept_behind(settled.items, index, length),
            recomputed=counts if index == repaired else {},
            microseconds=microseconds,
            policy="+".join(
                dict.fromkeys(prompt.policies[i] for i in item.edits if prompt.policies)
            ),
        )
        for index, item in enumerate(settled.items)
    )
