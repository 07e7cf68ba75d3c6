"""What a prompt token costs, by a provider's price list or by what an engine's receipts have told.

The unit is an uncached prompt token. Price lists: Anthropic charges 0.1 for a token read from its
cache and 1.25 for one written to it, kept for five minutes after its last use; OpenAI 0.1, 0.25 or
0.5 by model family, nothing extra for writing, kept for five to ten minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline_agent.adapter import Capabilities
from leyline_agent.directive import Mode
from leyline_agent.receipt import Reason, Receipt

__all__ = ["ANTHROPIC", "NAMED", "OPENAI", "Costs", "Prices", "learned"]


@dataclass(frozen=True)
class Prices:
    """A provider's prices, in uncached prompt tokens.

    Attributes:
        read: of a token found in the cache.
        write: of a token that is not, the cache written.
        ttl: seconds for which the cache keeps what was used last.

    Raises:
        ValueError: a price is below 0, or nothing is kept at all.
    """

    read: float = 0.1
    write: float = 1.0
    ttl: float = 300.0

    def __post_init__(self) -> None:
        if self.read < 0 or self.write <= 0 or self.ttl <= 0:
            raise ValueError(f"{self}: read must not be below 0, write and ttl must be above it")


ANTHROPIC = Prices(read=0.1, write=1.25)
OPENAI = Prices(read=0.1, write=1.0)
NAMED = {"anthropic": ANTHROPIC, "openai": OPENAI}

# Until receipts tell: two boundary windows of 16 tokens, and a few echoes.
_REPAIRED = 64.0
_LOOKED_AT = 32
_REFUSALS = {Reason.ROPE_KIND, Reason.LAYER_KIND, Reason.ENGINE_CANNOT_SPLICE}


@dataclass(frozen=True)
class Costs:
    """What edits cost with one engine.

    Attributes:
        prices: of prompt tokens.
        splices: whether it keeps what stands behind an edit.
        edits_ahead: whether it can edit while a tool runs.
        repaired: tokens that REPAIR computes for one edit.
        tokens_per_s: how fast it computes prompt tokens; None while unknown.
        queue: requests that run or wait there now.
    """

    prices: Prices = OPENAI
    splices: bool = False
    edits_ahead: bool = False
    repaired: float = _REPAIRED
    tokens_per_s: float | None = None
    queue: int = 0


def learned(
    receipts: Sequence[Receipt], capabilities: Capabilities, prices: Prices, queue: int = 0
) -> Costs:
    """The costs with an engine of these capabilities, as its last receipts tell them."""
    last = receipts[-_LOOKED_AT:]
    edits = [edit for receipt in last for edit in receipt.edits]
    refused = any(edit.reason in _REFUSALS for edit in edits)
    repairs = sum(edit.mode_used is Mode.REPAIR for edit in edits)
    timed = [r for r in last if r.ttft_ms and r.compute]
    seconds = sum(r.ttft_ms or 0.0 for r in timed) / 1e3
    return Costs(
        prices=prices,
        splices=bool(capabilities.modes - {Mode.FORGET}) and not refused,
        edits_ahead=capabilities.edit_ahead,
        repaired=sum(r.recomputed for r in last) / repairs if repairs else _REPAIRED,
        tokens_per_s=sum(r.compute for r in timed) / seconds if seconds else None,
        queue=queue,
    )
