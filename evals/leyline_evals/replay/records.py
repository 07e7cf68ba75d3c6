"""What a replay writes down: a row a turn, a line a (run, arm)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from leyline_agent.directive import Mode
from leyline_agent.receipt import Reason, Receipt
from leyline_evals.replay.arms import Arm

__all__ = ["ArmRun", "Config", "Ended", "Failed", "FidelityRow", "TurnRow"]


K = TypeVar("K")


class Row(BaseModel):
    """Base of what is written down; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TurnRow(Row):
    """One turn of one arm.

    Attributes:
        turn: from 1.
        prompt, exact, spliced, recomputed, prefilled: tokens, as in `Receipt`.
        edits: messages the policy edited this turn.
        suffix: cached tokens the engine said it keeps behind the turn's first edit.
        reasons: directives by why their mode is what it is; "asked" where it is the one asked for.
        modes: directives by the mode used.
        ttft_ms: from the request to the first logits; None where no model ran.
        splice_us, copy_us: as in `Receipt`.
        session_ms: policies, history and edits, before the request; not in `ttft_ms`.
    """

    turn: int
    prompt: int
    exact: int = 0
    spliced: int = 0
    recomputed: int = 0
    prefilled: int = 0
    edits: int = 0
    suffix: int = 0
    reasons: dict[Reason, int] = Field(default_factory=dict)
    modes: dict[Mode, int] = Field(default_factory=dict)
    ttft_ms: float | None = None
    splice_us: float = 0.0
    copy_us: float = 0.0
    session_ms: float = 0.0

    @property
    def compute(self) -> int:
        """Tokens computed for the prompt."""
        return self.recomputed + self.prefilled

    @classmethod
    def of(
        cls, turn: int, receipt: Receipt, *, edits: int, session_ms: float, ran: bool
    ) -> TurnRow:
        """The row of a receipt; `ran` says whether a model computed it."""
        return cls(
            turn=turn,
            prompt=receipt.prompt,
            exact=receipt.reused_exact,
            spliced=receipt.reused_spliced,
            recomputed=receipt.recomputed,
            prefilled=receipt.prefilled,
            edits=edits,
            suffix=max((edit.suffix for edit in receipt.edits), default=0),
            reasons=_counts(edit.reason for edit in receipt.edits),
            modes=_counts(edit.mode_used for edit in receipt.edits),
            ttft_ms=_rounded(receipt.ttft_ms) if ran else None,
            splice_us=round(receipt.splice_us, 1),
            copy_us=round(receipt.copy_us, 1),
            session_ms=round(session_ms, 3),
        )


class FidelityRow(Row):
    """How near one turn's predictions of the recorded reply are to an honest re-prefill.

    Each figure is a mean over the reply's tokens: KL(honest || this) in nats, and how often the
    likeliest token is the same. The controls are measured on the same turn.

    Attributes:
        turn: from 1.
        tokens: tokens of the reply.
        kl, top1: this arm.
        floor_kl, floor_top1: honest once more in another chunking: what rounding does.
        unedited_kl, unedited_top1: the edit undone: honest on the whole history; None where it
            does not fit the model's context.
    """

    turn: int
    tokens: int
    kl: float
    top1: float
    floor_kl: float
    floor_top1: float
    unedited_kl: float | None = None
    unedited_top1: float | None = None


class Ended(Row):
    """Why an arm stopped before the run's last turn: the error's name and what it said."""

    kind: str
    detail: str


class Failed(Row):
    """A policy that raised: its name, in how many turns, and what it raised most often."""

    policy: str
    turns: int
    error: str


class ArmRun(Row):
    """One run in one arm: a line of the file beside the report.

    Attributes:
        file, number, id, format: the run (`workload.Run`).
        arm: how it was served.
        messages: of the whole recording.
        turns: how many the run has (or was cut to).
        rows: the turns done.
        ended: why not all are done; None when they are.
        failed: the policies that raised, each once.
        fidelity: the turns at which it was measured.
    """

    file: str
    number: int
    id: str
    format: str
    arm: Arm
    messages: int
    turns: int
    rows: list[TurnRow]
    ended: Ended | None = None
    failed: list[Failed] = Field(default_factory=list)
    fidelity: list[FidelityRow] = Field(default_factory=list)


class Config(Row):
    """What makes two replays comparable; a replay resumes only one of the same.

    Attributes:
        policy: in its text form.
        model: as asked for.
        tokens_only: no model ran.
        max_turns: turns of each run; None for all.
        fidelity_turns: turns of each run at which fidelity is measured; 0 for none.
        fulfil: who answers the policy's questions; "" for nobody.
    """

    policy: str
    model: str
    tokens_only: bool = False
    max_turns: int | None = None
    fidelity_turns: int = 0
    fulfil: str = ""


def _counts(values: Iterable[K]) -> dict[K, int]:
    return dict(Counter(values))


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)
