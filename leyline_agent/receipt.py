"""Receipts: what an engine really did with a turn, and why. The wire's `leyline` answer.

The figures add up, and `Receipt` refuses figures that don't:

    prompt   = reused_exact + reused_spliced + recomputed + prefilled
    prompt   = previous - removed + inserted + appended
    compute  = recomputed + prefilled
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyline_agent.directive import Mode
from leyline_agent.usage import Usage, read

__all__ = ["EditReceipt", "Reason", "Receipt"]


class Reason(str, Enum):
    """Why a turn or an edit was carried out otherwise than asked (docs/engine.md explains each)."""

    ASKED = "asked"
    USER_FLOOR = "user_floor"
    FIDELITY_FLOOR = "fidelity_floor"
    COST_GATE = "cost_gate"
    BEHIND_FORGET = "behind_forget"
    UNDECLARED = "undeclared"
    REDACTED = "redacted"
    NO_SUFFIX = "no_suffix"
    NO_CHANGE = "no_change"
    UNSEEN = "unseen"
    EVICTED = "evicted"
    MERGED = "merged"
    UNKNOWN_SESSION = "unknown_session"
    STALE_VERSION = "stale_version"
    DIGEST_MISMATCH = "digest_mismatch"
    INVALID_EDIT = "invalid_edit"
    ROPE_KIND = "rope_kind"
    LAYER_KIND = "layer_kind"
    ENGINE_CANNOT_SPLICE = "engine_cannot_splice"
    RETRY = "retry"
    NO_RECEIPT = "no_receipt"


class EditReceipt(BaseModel):
    """What one edit became.

    Attributes:
        id: the edit's id inside the engine's session; `forget(id)` takes it.
        start, end: the token span replaced, in the previous sequence.
        inserted: number of replacement tokens.
        mode_asked, mode_used: never weaker than asked.
        reason: why the mode used is what it is.
        suffix: tokens behind the span that were kept.
        recomputed: repaired tokens, by kind ("boundary", "echo", "delimiter", "tail").
        microseconds: host time of the splice itself.
        retained: for a redaction, slots other holders still keep.
        quoted_in: for a redaction, view indices of messages that quote the removed text.
        policy: whose edit it is.
        by_provider: the provider made it; the session's view still has what it removed.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    id: str = ""
    start: int = 0
    end: int = 0
    inserted: int = 0
    mode_asked: Mode = Mode.AMORTIZE
    mode_used: Mode = Mode.AMORTIZE
    reason: Reason = Reason.ASKED
    suffix: int = 0
    recomputed: dict[str, int] = Field(default_factory=dict)
    microseconds: float = 0.0
    retained: int = 0
    quoted_in: tuple[int, ...] = ()
    policy: str = ""
    by_provider: bool = False


class Receipt(BaseModel):
    """What one turn cost and what was reused.

    Attributes:
        session, base_version, version: which commit this answers.
        previous: tokens whose KV the engine held for the base version (0 when none).
        prompt: tokens of this turn's prompt.
        reused_exact: cached tokens never touched by a removed span.
        reused_spliced: cached tokens that saw a span which is no longer there.
        recomputed: cached tokens computed again (repair).
        prefilled: tokens computed that were not cached.
        completion: tokens of the reply, where the usage counts them.
        removed, inserted, appended: how the prompt differs from `previous`.
        reason: one code for the turn; ASKED when it was carried out as a turn of its session,
            whatever became of each edit.
        repair: what the engine's REPAIR covers: "none", "boundary" or "full".
        splice_us, copy_us: host time of splicing and of making a working copy.
        ttft_ms: from the request's turn to its first logits: rendering, lowering, splice, prefill.
        cache_read: tokens the provider says its prompt cache served; None where it says nothing.
        cache_written: tokens it says it put there; likewise.
        cache_held: tokens its cache held of the base version's prompt by the receipt of that turn.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    session: str = ""
    base_version: int = 0
    version: int = 0
    previous: int = 0
    prompt: int = 0
    reused_exact: int = 0
    reused_spliced: int = 0
    recomputed: int = 0
    prefilled: int = 0
    completion: int = 0
    removed: int = 0
    inserted: int = 0
    appended: int = 0
    edits: tuple[EditReceipt, ...] = ()
    reason: Reason = Reason.ASKED
    repair: str = "none"
    splice_us: float = 0.0
    copy_us: float = 0.0
    ttft_ms: float | None = None
    cache_read: int | None = None
    cache_written: int | None = None
    cache_held: int | None = None
    detail: str = ""

    @property
    def cache_lost(self) -> int | None:
        """Tokens of `cache_held` that were not read: an edit was in front of them, or they expired.

        None where the provider does not say.
        """
        if self.cache_read is None or self.cache_held is None:
            return None
        return max(0, self.cache_held - self.cache_read)

    @property
    def compute(self) -> int:
        """Tokens the engine computed for this prompt."""
        return self.recomputed + self.prefilled

    @property
    def reused(self) -> int:
        """Tokens the engine did not compute."""
        return self.reused_exact + self.reused_spliced

    @model_validator(mode="after")
    def _adds_up(self) -> Receipt:
        parts = self.reused_exact + self.reused_spliced + self.recomputed + self.prefilled
        change = self.previous - self.removed + self.inserted + self.appended
        if self.prompt != parts or self.prompt != change:
            raise ValueError(
                f"receipt does not add up: prompt {self.prompt}, reused+computed {parts}, "
                f"previous-removed+inserted+appended {change}"
            )
        return self

    @classmethod
    def from_usage(cls, usage: Mapping[str, Any], **extra: Any) -> Receipt:
        """A receipt from a provider's `usage`, for engines that say no more than cached tokens."""
        told = read(usage) or Usage(0)
        cached = min(told.cache_read or 0, told.prompt)
        return cls(
            prompt=told.prompt,
            reused_exact=cached,
            prefilled=told.prompt - cached,
            appended=told.prompt,
            completion=told.completion or 0,
            cache_read=told.cache_read,
            cache_written=told.cache_written,
            **extra,
        )
