"""What spans, events and metrics say of a turn, under OpenTelemetry's names where it has some.

The names of `gen_ai.*` are those of its semantic conventions for generative AI (in development;
https://github.com/open-telemetry/semantic-conventions-genai), ours begin with `leyline.`. None of
these functions reads the text of a message.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from leyline_agent.accounting import told_of_each
from leyline_agent.receipt import EditReceipt, Reason, Receipt

if TYPE_CHECKING:
    from leyline_agent.proposal import Accepted, Skipped
    from leyline_agent.recall.exchange import Exchange
    from leyline_agent.timing.moment import Moment
    from leyline_agent.turn import Prepared

__all__ = [
    "Attributes",
    "TOKEN_KINDS",
    "asked",
    "common",
    "edits",
    "error_type",
    "is_abandoned",
    "moment",
    "recalls",
    "skipped",
    "spent",
]

Attributes = dict[str, str | int | float | bool]

TOKEN_KINDS = ("reused_exact", "reused_spliced", "recomputed", "prefilled")
"""How a prompt token came to be there; the four add up to the prompt."""

MAX_REASON_CHARS = 200

# Options of a call, and the type that they must have to be told.
OPTIONS: dict[str, tuple[type, ...]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "max_tokens": (int,),
    "seed": (int,),
}


def common(prepared: Prepared, provider: str | None) -> Attributes:
    """What spans and metrics share: the operation, the provider and the model."""
    found: Attributes = {"gen_ai.provider.name": provider or prepared.adapter}
    if prepared.asked is not None:
        found["gen_ai.operation.name"] = "chat"
        model = prepared.asked.get("model")
        if isinstance(model, str):
            found["gen_ai.request.model"] = model
    return found


def asked(prepared: Prepared) -> Attributes:
    """What is known of a turn before its call."""
    commit, seen = prepared.commit, prepared.trajectory
    found: Attributes = {
        "gen_ai.conversation.id": commit.session,
        "leyline.version": commit.version,
        "leyline.base_version": commit.base_version,
        "leyline.history.messages": len(seen.original.messages),
        "leyline.history.tokens": seen.original.tokens(),
    }
    if prepared.draft.view.edited or prepared.proposal.accepted:
        found["gen_ai.conversation.compacted"] = True
    return {**found, **_options(prepared.asked or {})}


def _options(call: Mapping[str, Any]) -> Attributes:
    found: Attributes = {
        f"gen_ai.request.{name}": call[name]
        for name, kinds in OPTIONS.items()
        if type(call.get(name)) in kinds
    }
    if call.get("stream"):
        found["gen_ai.request.stream"] = True
    return found


def spent(receipt: Receipt, *, is_call: bool) -> Attributes:
    """What a turn cost; nothing where the engine counted nothing. Edits ahead use no model."""
    found: Attributes = {"leyline.reason": receipt.reason.value}
    if receipt.reason is Reason.NO_RECEIPT and not receipt.prompt:
        return found
    found |= {f"leyline.tokens.{kind}": getattr(receipt, kind) for kind in TOKEN_KINDS}
    if is_call:
        found["gen_ai.usage.input_tokens"] = receipt.prompt
    if receipt.completion:
        found["gen_ai.usage.output_tokens"] = receipt.completion
    where_told = {
        "gen_ai.usage.cache_read.input_tokens": _cache_read(receipt) if is_call else None,
        "gen_ai.usage.cache_creation.input_tokens": receipt.cache_written,
        "leyline.cache.lost": receipt.cache_lost,
        "leyline.ttft_ms": receipt.ttft_ms,
    }
    return found | {name: value for name, value in where_told.items() if value is not None}


def _cache_read(receipt: Receipt) -> int | None:
    """Prompt tokens that were not computed; None where nobody says."""
    return receipt.reused or None if receipt.cache_read is None else receipt.cache_read


def edits(prepared: Prepared, receipt: Receipt) -> Iterator[Attributes]:
    """One set for each edit taken, then for what the engine did that is none of these.

    Tokens before and after are the engine's count where it tells them, else estimates.
    """
    accepted = prepared.proposal.accepted
    told = told_of_each([one.edit.policy for one in accepted], receipt.edits)
    for one, found in zip(accepted, told.each, strict=True):
        yield _taken(prepared, one) | (_used(found) if found else {})
    for other in told.others:
        yield {
            "leyline.edit.policy": other.policy,
            "leyline.edit.mode_asked": other.mode_asked.value,
            **_used(other),
        }


def _taken(prepared: Prepared, accepted: Accepted) -> Attributes:
    edit, seen = accepted.edit, prepared.trajectory
    found: Attributes = {
        "leyline.edit.policy": edit.policy,
        "leyline.edit.start": edit.start,
        "leyline.edit.end": edit.end,
        "leyline.edit.count": len(edit.replacement),
        "leyline.edit.mode_asked": edit.effective_mode().value,
        "leyline.edit.mode_sent": accepted.mode.value,
        "leyline.edit.tokens_before": seen.tokens(seen.messages[edit.start : edit.end]),
        "leyline.edit.tokens_after": seen.tokens(edit.replacement),
    }
    if edit.redact:
        found["leyline.edit.redact"] = True
    elif edit.reason:
        found["leyline.edit.reason"] = edit.reason[:MAX_REASON_CHARS]
    return found


def _used(told: EditReceipt) -> Attributes:
    found: Attributes = {
        "leyline.edit.mode_used": told.mode_used.value,
        "leyline.edit.reason_code": told.reason.value,
    }
    if told.end > told.start or told.inserted:
        found |= {
            "leyline.edit.tokens_before": told.end - told.start,
            "leyline.edit.tokens_after": told.inserted,
            "leyline.edit.tokens_kept_behind": told.suffix,
            "leyline.edit.tokens_recomputed": sum(told.recomputed.values()),
            "leyline.edit.microseconds": told.microseconds,
        }
    return found


def skipped(note: Skipped) -> Attributes:
    """A policy or an edit that was not taken. What was wrong may quote messages: not told."""
    found: Attributes = {"leyline.edit.policy": note.policy, "error.type": note.kind}
    if note.where:
        found["leyline.edit.where"] = note.where
    return found


def recalls(exchange: Exchange | None) -> Iterator[Attributes]:
    """One set for each output that the model asked to see again.

    What is not there the model named in its own words: not told.
    """
    for one in exchange.recalled if exchange else ():
        named: Attributes = {"leyline.recall.id": one.id} if one.found else {}
        yield named | {
            "leyline.recall.found": one.found,
            "leyline.recall.again": one.again,
            "leyline.edit.policy": one.policy,
        }


def moment(chosen: Moment) -> Attributes:
    """When some of a turn's edits are made, and why."""
    found: Attributes = {
        "leyline.moment.when": chosen.when.value,
        "leyline.moment.held": chosen.held,
        "leyline.moment.reason": chosen.reason,
        "leyline.moment.edits": len(chosen.edits),
        "leyline.moment.saves": chosen.saves,
        "leyline.moment.cost": chosen.cost,
    }
    if chosen.calls is not None:
        found["leyline.moment.calls"] = chosen.calls
    return found


def is_abandoned(error: BaseException | str | None) -> bool:
    """Whether a turn was given up and did not fail."""
    return error is None or error == "abandoned"


def error_type(error: BaseException | str | None) -> str:
    """The exception's name; its text may quote messages, and so may a caller's own words."""
    if not isinstance(error, BaseException):
        return "_OTHER"
    kind = type(error)
    package = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{package}{kind.__qualname__}"
