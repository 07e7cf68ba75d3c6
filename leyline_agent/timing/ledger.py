"""The ledger: what a session remembers of its last call for the sake of timing.

Everything in it is in the journal too, so that a resumed session decides as the first one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline_agent.receipt import Receipt
from leyline_agent.timing.moment import Moment, When

__all__ = ["Ledger"]

# Providers cache no shorter prompts; and a system prompt that others share is no hit of ours.
_MIN_CACHED = 1024
_HIT = 0.1


@dataclass
class Ledger:
    """What is known of the last call.

    Attributes:
        answered: when it was answered, in seconds since 1970; None before the first.
        gap: seconds between the answer before and that one.
        expected: tokens of its prompt that a cache should have held and did not; 0 where it held
            them, or none were expected.
        tool_missed: edits were held for a tool, and none was used to make them since.
        prompt: tokens of its prompt.
    """

    answered: float | None = None
    gap: float = 0.0
    expected: int = 0
    tool_missed: bool = False
    prompt: int = 0

    def committed(self, moments: Sequence[Moment], receipt: Receipt, at: float) -> None:
        """Take a commit into account: what was decided of its edits, what it cost, and when."""
        if any(moment.when is When.TOOL and not moment.held for moment in moments):
            self.tool_missed = any(moment.held for moment in moments)
            return
        self.tool_missed = any(moment.when is When.TOOL for moment in moments)
        appended = not receipt.edits and receipt.prompt >= self.prompt >= _MIN_CACHED
        read = receipt.cache_read  # None where the provider tells nothing of its cache
        missed = appended and read is not None and read < _HIT * self.prompt
        self.expected = self.prompt if missed else 0
        self.gap = 0.0 if self.answered is None else at - self.answered
        self.answered, self.prompt = at, receipt.prompt

    def cold(self, now: float, ttl: float) -> str:
        """Why a provider's cache holds nothing of the conversation now; "" when it may."""
        if self.answered is not None and now - self.answered > ttl:
            return f"the last call was {now - self.answered:,.0f} s ago, and it keeps {ttl:,.0f} s"
        if self.expected and self.gap <= ttl:
            return f"the last call found nothing of the {self.expected:,} tokens sent before"
        return ""
