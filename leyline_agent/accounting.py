"""What turns cost: receipts completed with what the session knows, and their totals."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from pydantic import ValidationError

from leyline_agent import response
from leyline_agent.adapter import Adapter, Commit
from leyline_agent.directive import Mode
from leyline_agent.errors import AdapterError
from leyline_agent.proposal import Accepted
from leyline_agent.receipt import EditReceipt, Reason, Receipt

__all__ = ["Stats", "Told", "calibrated", "completed", "received", "told_of_each", "total"]

logger = logging.getLogger("leyline.session")

_SANE_CHARS_PER_TOKEN = (0.5, 16.0)


@dataclass(frozen=True)
class Stats:
    """Totals of a session.

    Attributes:
        turns: turns finished.
        failed: turns that failed or were abandoned.
        edits: edits committed.
        skipped: policies and edits not taken.
        held: edits that waited for a later moment, counted once a turn.
        ahead: times that edits were made ahead of a call; no turns. What that computed counts as
            part of the prompts, what it reused does not.
        hidden: calls of the model that the harness saw nothing of, for recalls; no turns.
        recalls: outputs shown again to the model that asked for them.
        repeated: those of them that had been shown before: policies cut too much.
        prompt, reused_exact, reused_spliced, recomputed, prefilled: tokens, as in `Receipt`.
        policy_ms: time spent in policies.
    """

    turns: int = 0
    failed: int = 0
    edits: int = 0
    skipped: int = 0
    held: int = 0
    ahead: int = 0
    hidden: int = 0
    recalls: int = 0
    repeated: int = 0
    prompt: int = 0
    reused_exact: int = 0
    reused_spliced: int = 0
    recomputed: int = 0
    prefilled: int = 0
    policy_ms: float = 0.0

    @property
    def compute(self) -> int:
        """Prompt tokens the engine computed."""
        return self.recomputed + self.prefilled

    @property
    def hit_rate(self) -> float:
        """The part of all prompt tokens that was reused; 0 when there were none."""
        return (self.reused_exact + self.reused_spliced) / self.prompt if self.prompt else 0.0


class Told(NamedTuple):
    """What an engine told of a turn's edits.

    Attributes:
        each: of each edit in turn; None where the engine merged edits or left some out.
        others: what is of no edit in particular, changes that nobody declared among them.
    """

    each: tuple[EditReceipt | None, ...]
    others: tuple[EditReceipt, ...]


_FIGURES = tuple(
    f.name for f in fields(Stats) if f.name in Receipt.model_fields and f.name != "edits"
)


def total(receipts: Iterable[Receipt], ahead: Collection[int] = (), **counts: float) -> Stats:
    """The totals of `receipts`.

    Args:
        receipts: of all commits.
        ahead: versions of those that were no calls.
        counts: the other fields of `Stats`.
    """
    sums = dict.fromkeys(_FIGURES, 0)
    turns = -int(counts.get("hidden", 0))
    num_ahead = 0
    for receipt in receipts:
        if receipt.version in ahead:
            num_ahead += 1
            sums["prompt"] += receipt.compute
            sums["recomputed"] += receipt.recomputed
            sums["prefilled"] += receipt.prefilled
            continue
        turns += 1
        for name in _FIGURES:
            sums[name] += getattr(receipt, name)
    return Stats(turns=turns, ahead=num_ahead, **sums, **counts)  # type: ignore[arg-type]


def received(adapter: Adapter, result: Any, session: str) -> Receipt | None:
    """The engine's receipt in a response; one that cannot be read must not cost the reply."""
    body = response.as_dict(result)
    if body is None:
        return None
    try:
        found = adapter.receipt(body)
    except (AdapterError, ValidationError) as error:
        logger.warning("session %s: the receipt cannot be read: %s", session, error)
        found = None
    usage = response.usage(body)
    if usage is None or (found is not None and found.completion):
        return found
    counted = Receipt.from_usage(usage)
    return found.model_copy(update={"completion": counted.completion}) if found else counted


def completed(
    found: Receipt | None,
    commit: Commit,
    accepted: Sequence[Accepted],
    receipts: Sequence[Receipt] = (),
) -> Receipt:
    """A receipt with the commit's numbers and, for each edit, what the session did to its mode.

    Engines that say nothing of edits computed whatever changed again: such edits are told with
    the mode they were sent with, and where the engine may well have done otherwise, with the
    reason `no_receipt`. `receipts` are those of earlier turns.
    """
    if found is None:
        found = Receipt(reason=Reason.NO_RECEIPT)
    theirs = tuple(edit for edit in found.edits if edit.by_provider)
    told = [edit for edit in found.edits if not edit.by_provider]
    edits = _matched(told, accepted) if told else _untold(found, accepted)
    return found.model_copy(
        update={
            "session": commit.session,
            "base_version": commit.base_version,
            "version": commit.version,
            "edits": (*edits, *theirs),
            "cache_held": _held(receipts, commit) if found.cache_read is not None else None,
        }
    )


def _held(receipts: Sequence[Receipt], commit: Commit) -> int | None:
    """What a provider's cache held of the base version's prompt: what it read of it, and wrote."""
    bases = (receipt for receipt in reversed(receipts) if receipt.version == commit.base_version)
    base = next(bases, None)
    if base is None or base.cache_read is None:
        return None
    return base.cache_read + (base.cache_written or 0)


def _matched(told: Sequence[EditReceipt], accepted: Sequence[Accepted]) -> tuple[EditReceipt, ...]:
    """What an engine told, with the session's share of it where it is clear which edit is meant.

    Engines merge edits, leave out those that changed nothing cached, and tell of changes that
    nobody declared; those name no policy.
    """
    one_by_one = _is_one_by_one([a.edit.policy for a in accepted], told)
    ours = iter(accepted)
    result = []
    for receipt in told:
        if receipt.policy and one_by_one:
            receipt = _told(receipt, next(ours))
        elif receipt.policy:
            alike = [a for a in accepted if a.edit.policy == receipt.policy]
            if len({(a.edit.effective_mode(), a.reason) for a in alike}) == 1:
                receipt = _told(receipt, alike[0])
        result.append(receipt)
    return tuple(result)


def told_of_each(policies: Sequence[str], told: Sequence[EditReceipt]) -> Told:
    """A turn's edit receipts, sorted by the edits they are of: those of `policies`, in order."""
    if not _is_one_by_one(policies, told):
        return Told((None,) * len(policies), tuple(told))
    others = tuple(receipt for receipt in told if not receipt.policy)
    return Told(tuple(receipt for receipt in told if receipt.policy), others)


def _is_one_by_one(policies: Sequence[str], told: Sequence[EditReceipt]) -> bool:
    return [receipt.policy for receipt in told if receipt.policy] == list(policies)


def _untold(found: Receipt, accepted: Sequence[Accepted]) -> tuple[EditReceipt, ...]:
    """Of edits that an engine says nothing of: as sent, unless it could not build on the base."""
    lost = found.reason not in {Reason.ASKED, Reason.NO_RECEIPT} and not found.reused_spliced
    sent = Reason.ASKED if found.reused_spliced else found.reason
    return tuple(
        EditReceipt(
            mode_asked=each.edit.effective_mode(),
            mode_used=Mode.FORGET if lost else each.mode,
            reason=sent if lost or each.reason is Reason.ASKED else each.reason,
            policy=each.edit.policy,
        )
        for each in accepted
    )


def _told(receipt: EditReceipt, accepted: Accepted) -> EditReceipt:
    """The engine was asked for the mode it was sent; the policy may have asked for less."""
    reason = accepted.reason if receipt.reason is Reason.ASKED else receipt.reason
    asked = accepted.edit.effective_mode()
    return receipt.model_copy(update={"mode_asked": asked, "reason": reason})


def calibrated(before: float, chars: int, prompt_tokens: int) -> float:
    """Characters a token, from a prompt the engine has counted; `before` where it counted none."""
    if prompt_tokens <= 0 or chars <= 0:
        return before
    low, high = _SANE_CHARS_PER_TOKEN
    return min(max(chars / prompt_tokens, low), high)
