"""The metrics of turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from leyline_agent.receipt import Receipt
from leyline_agent.telemetry.attributes import TOKEN_KINDS, Attributes

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

__all__ = ["Metrics"]

# What the conventions advise for these two; the SDK's own buckets are for other sizes.
_SECONDS = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
_TOKENS = [4**power for power in range(14)]
_MILLISECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000]


class Metrics:
    """Our instruments."""

    def __init__(self, meter: Meter) -> None:
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "From a turn's beginning to its end.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )  # fmt: skip
        self._usage = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of prompts and replies.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )  # fmt: skip
        self._policy_ms = meter.create_histogram(
            "leyline.policy.duration", "ms", "What the policies of a turn took.",
            explicit_bucket_boundaries_advisory=_MILLISECONDS,
        )  # fmt: skip
        self._ttft = meter.create_histogram(
            "leyline.ttft", "ms", "From a request's turn in the engine to its first logits.",
            explicit_bucket_boundaries_advisory=_MILLISECONDS,
        )  # fmt: skip
        self._turns = meter.create_counter("leyline.turns", "{turn}", "Turns by how they ended.")
        self._tokens = meter.create_counter(
            "leyline.tokens", "{token}", "Prompt tokens by how they came to be there."
        )
        self._edits = meter.create_counter(
            "leyline.edits", "{edit}", "Edits by policy, mode used and reason."
        )
        self._held = meter.create_counter(
            "leyline.held", "{edit}", "Edits left for a later moment, counted once a turn."
        )
        self._recalls = meter.create_counter(
            "leyline.recalls", "{recall}", "Outputs that a model asked to see again."
        )
        self._skipped = meter.create_counter(
            "leyline.skipped", "{edit}", "Policies and edits not taken."
        )

    def begun(self, seconds: float, skipped: Iterable[Attributes], held: int) -> None:
        """Policies ran."""
        self._policy_ms.record(seconds * 1e3)
        if held:
            self._held.add(held)
        for note in skipped:
            self._skipped.add(1, _only(note, "leyline.edit.policy", "error.type"))

    def recalled(self, recalls: Iterable[Attributes]) -> None:
        """The model asked for what had been cut."""
        for one in recalls:
            told = _only(one, "leyline.edit.policy", "leyline.recall.found", "leyline.recall.again")
            self._recalls.add(1, told)

    def ended(self, outcome: str, seconds: float, shared: Attributes) -> None:
        """A turn ended: it was committed, failed or abandoned. Edits ahead of one are none."""
        if "gen_ai.operation.name" in shared:
            self._turns.add(1, {"leyline.outcome": outcome})
            self._seconds.record(seconds, shared)

    def spent(self, receipt: Receipt, edits: Iterable[Attributes], shared: Attributes) -> None:
        """What a turn cost; of edits ahead of one, what they computed and no more."""
        is_call = "gen_ai.operation.name" in shared
        for kind in TOKEN_KINDS:
            if is_call or not kind.startswith("reused"):
                self._tokens.add(getattr(receipt, kind), {"leyline.token.kind": kind})
        for kind, count in (("input", receipt.prompt), ("output", receipt.completion)):
            if is_call and count:
                self._usage.record(count, {**shared, "gen_ai.token.type": kind})
        if is_call and receipt.ttft_ms is not None:
            self._ttft.record(receipt.ttft_ms)
        names = ("leyline.edit.policy", "leyline.edit.mode_used", "leyline.edit.reason_code")
        for edit in edits:
            self._edits.add(1, _only(edit, *names))


def _only(attributes: Mapping[str, str | int | float | bool], *names: str) -> Attributes:
    return {name: attributes[name] for name in names if name in attributes}
