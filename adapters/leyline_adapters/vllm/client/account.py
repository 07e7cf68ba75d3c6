"""The account of a turn: what the connector told of each stage, as one receipt that adds up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from leyline_adapters.vllm.client.planning import Plan, Stage, kept_behind
from leyline_adapters.vllm.client.turn import Turn
from leyline_adapters.vllm.wire import Told
from leyline_agent.directive import Mode
from leyline_agent.quoting import quoting_messages
from leyline_agent.receipt import EditReceipt, Reason, Receipt

__all__ = ["Answered", "receipt"]

Span = tuple[int, int]


@dataclass(frozen=True)
class Answered:
    """A stage and what the connector told of it."""

    stage: Stage
    told: Told

    @property
    def computed(self) -> Span:
        """The tokens it computed: the last ones of its prompt."""
        return self.told.prompt - self.told.prefilled, self.told.prompt


def receipt(turn: Turn, answered: Sequence[Answered], completion: int = 0) -> Receipt:
    """The receipt of a turn whose stages were answered, the last one by its reply."""
    prompt = len(turn.tokens)
    last = answered[-1].told
    computed = _union([each.computed for each in answered])
    edits = _edits(turn, computed, answered)
    recomputed = sum(count for edit in edits for count in edit.recomputed.values())
    compute = sum(end - start for start, end in computed)
    spliced_from = prompt if last.spliced_from is None else min(last.spliced_from, prompt)
    exact = spliced_from - _common(computed, (0, spliced_from))
    reason, detail = _reason(turn, answered)
    detail = "; ".join(filter(None, (detail, *_gates(turn, edits))))
    items = [item.directive for item in turn.plan.items]
    removed = sum(each.end - each.start for each in items)
    inserted = sum(len(each.replacement) for each in items)
    return Receipt(
        session=turn.commit.session,
        base_version=turn.commit.base_version,
        version=turn.commit.version,
        previous=turn.previous,
        prompt=prompt,
        reused_exact=exact,
        reused_spliced=prompt - compute - exact,
        recomputed=recomputed,
        prefilled=compute - recomputed,
        completion=completion,
        removed=removed,
        inserted=inserted,
        appended=prompt - turn.previous + removed - inserted,
        edits=edits,
        reason=reason,
        detail=detail,
        repair="boundary",
        splice_us=sum(each.told.splice_us for each in answered),
    )


def _reason(turn: Turn, answered: Sequence[Answered]) -> tuple[Reason, str]:
    """One reason: the turn's own, else the first that the connector gave."""
    refused = (each.told for each in answered if _as_reason(each.told.reason) is not Reason.ASKED)
    told = next(refused, None)
    if turn.reason not in (Reason.ASKED, Reason.EVICTED) or told is None:
        return turn.reason, turn.detail
    return _as_reason(told.reason), "; ".join(filter(None, (turn.detail, told.detail)))


def _gates(turn: Turn, edits: Sequence[EditReceipt]) -> Iterator[str]:
    """Which limit each edit met whose reason is the cost gate."""
    limits = turn.plan.limits
    planned = {f"{turn.commit.version}.{at}": item for at, item in enumerate(turn.plan.items)}
    for edit in edits:
        if edit.reason is Reason.COST_GATE and edit.id in planned:
            if planned[edit.id].reason is Reason.COST_GATE:
                why = f"no more than Limits(gate_tokens={limits.gate_tokens}) tokens are kept"
            else:
                why = (
                    f"only runs below Limits(stage_tokens={limits.stage_tokens}), or beyond "
                    f"Limits(stages={limits.stages}), are kept"
                )
            yield f"edit {edit.id}: {why} behind it"


def _as_reason(told: str) -> Reason:
    try:
        return Reason(told)
    except ValueError:  # a connector of another release
        return Reason.ENGINE_CANNOT_SPLICE


def _edits(
    turn: Turn, computed: Sequence[Span], answered: Sequence[Answered]
) -> tuple[EditReceipt, ...]:
    """What each directive became, and the edits that became none."""
    reasons = (_as_reason(each.told.reason) for each in answered)
    whole = len(answered) == len(turn.plan.stages)
    otherwise = Reason.COST_GATE if whole and turn.reason is Reason.ASKED else Reason.EVICTED
    refusal = next((reason for reason in reasons if reason is not Reason.ASKED), otherwise)
    told: list[EditReceipt] = []
    for index, item in enumerate(turn.plan.items):
        mode, reason = item.directive.mode, item.reason
        if mode is not Mode.FORGET and _is_lost(turn, index, computed):
            mode, reason = Mode.FORGET, refusal
        told.append(_told(turn, index, computed, mode, reason))
    for at, receipt in reversed(turn.without):
        told.insert(at, receipt)
    spliced = [at for at, each in enumerate(told) if each.mode_used is not Mode.FORGET]
    if len(spliced) == 1:  # then it took all of the time
        took = {"microseconds": sum(each.told.splice_us for each in answered)}
        told[spliced[0]] = told[spliced[0]].model_copy(update=took)
    return _redacted(turn, told)


def _redacted(turn: Turn, told: Sequence[EditReceipt]) -> tuple[EditReceipt, ...]:
    """With what redactions left behind: vLLM does not overwrite the KV that is given up."""
    if not turn.redacts:
        return tuple(told)
    known: dict[str, Any] = {
        "mode_used": Mode.FORGET,
        "reason": Reason.REDACTED,
        "quoted_in": quoting_messages(turn.removed, turn.messages or ()),
    }
    edits = [
        each.model_copy(update={**known, "retained": each.end - each.start})
        if index in turn.redacting
        else each
        for index, each in enumerate(told)
    ]
    if not turn.redacting:  # nothing of it was held of this version
        edits.append(EditReceipt(mode_asked=Mode.FORGET, **known))
    return tuple(edits)


def _told(
    turn: Turn, index: int, computed: Sequence[Span], mode: Mode, reason: Reason
) -> EditReceipt:
    item = turn.plan.items[index]
    directive = item.directive
    again: dict[str, int] = {}
    if mode is not Mode.FORGET:
        for kind, start, end in _again_behind(turn.plan, index):
            again[kind] = again.get(kind, 0) + _common(computed, (start, end))
    return EditReceipt(
        id=f"{turn.commit.version}.{index}",
        start=directive.start,
        end=directive.end,
        inserted=len(directive.replacement),
        mode_asked=item.asked,
        mode_used=mode,
        reason=reason,
        suffix=0 if mode is Mode.FORGET else kept_behind(turn.plan.items, index, turn.previous),
        recomputed=again,
        policy=turn.policies[index],
    )


def _again_behind(plan: Plan, index: int) -> list[tuple[str, int, int]]:
    """Kept tokens that were computed again between one directive and the next."""
    start = _place(plan, index)
    stop = _place(plan, index + 1) if index + 1 < len(plan.items) else None
    return [run for run in plan.again if start <= run[1] and (stop is None or run[1] < stop)]


def _place(plan: Plan, index: int) -> int:
    """Where what stands behind a directive begins in the prompt."""
    shift = sum(item.directive.delta for item in plan.items[: index + 1])
    return plan.items[index].directive.end + shift


def _is_lost(turn: Turn, index: int, computed: Sequence[Span]) -> bool:
    """Whether all that was kept behind an edit had to be computed after all."""
    start = _place(turn.plan, index)
    behind = [span for span in turn.plan.kept if span[0] >= start]
    return bool(behind) and all(_common(computed, span) == span[1] - span[0] for span in behind)


def _union(spans: Sequence[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _common(spans: Sequence[Span], other: Span) -> int:
    return sum(_overlap(span, other) for span in spans)


def _overlap(one: Span, other: Span) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
