"""What one reply of the model cost: its calls, their receipts and times, as a step's record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline_agent.directive import Mode
from leyline_agent.receipt import EditReceipt, Reason, Receipt
from leyline_agent.response import as_dict
from leyline_evals.solve.driver import StepRecord

__all__ = ["Heard", "Tally"]


@dataclass(frozen=True)
class Heard:
    """What a call of the model gave.

    Attributes:
        response: a chat completion.
        ttft_ms: milliseconds to its first token; None where the receipt says it or nobody does.
        cost: in dollars; None where no price is known.
    """

    response: Any
    ttft_ms: float | None = None
    cost: float | None = None


@dataclass
class Tally:
    """The calls behind one reply, those the session hid included.

    Attributes:
        edits: edits made before it.
        model_seconds, session_seconds: wall time of the calls, and of all else.
        heard: the calls.
    """

    edits: int = 0
    model_seconds: float = 0.0
    session_seconds: float = 0.0
    heard: list[Heard] = field(default_factory=list)

    def record(
        self, number: int, at: float, receipts: Sequence[Receipt], recalls: int
    ) -> StepRecord:
        """The step's record. `receipts` are those of the calls."""
        edits = [_carried(edit, receipt) for receipt in receipts for edit in receipt.edits]
        return StepRecord(
            number=number,
            at=round(at, 4),
            calls=len(self.heard),
            prompt=sum(r.prompt for r in receipts),
            exact=sum(r.reused_exact for r in receipts),
            spliced=sum(r.reused_spliced for r in receipts),
            recomputed=sum(r.recomputed for r in receipts),
            prefilled=sum(r.prefilled for r in receipts),
            completion=sum(r.completion for r in receipts),
            edits=self.edits,
            modes=dict(Counter(mode.value for mode, _ in edits)),
            reasons=dict(Counter(why.value for _, why in edits if why is not Reason.ASKED)),
            ttft_ms=self._ttft(receipts),
            model_seconds=round(self.model_seconds, 6),
            session_ms=round(self.session_seconds * 1e3, 4),
            recalls=recalls,
            cost=self._cost(),
            stopped=_stopped(self.heard[-1].response),
        )

    def _ttft(self, receipts: Sequence[Receipt]) -> float | None:
        """Of the first call: what is waited for after an edit."""
        measured = self.heard[0].ttft_ms
        return measured if measured is not None or not receipts else receipts[0].ttft_ms

    def _cost(self) -> float | None:
        costs = [heard.cost for heard in self.heard if heard.cost is not None]
        return sum(costs) if costs else None


def _carried(edit: EditReceipt, receipt: Receipt) -> tuple[Mode, Reason]:
    """The mode in which an edit was carried out, and why: its own reason, or else the turn's."""
    return edit.mode_used, receipt.reason if edit.reason is Reason.ASKED else edit.reason


def _stopped(response: Any) -> str:
    choices = (as_dict(response) or {}).get("choices") or ()
    return str((as_dict(choices[0]) or {}).get("finish_reason") or "") if choices else ""
