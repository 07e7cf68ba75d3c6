"""Segment attention: queries at any logical positions over a sequence's segments.

Keys stay where they were written. A segment that stands `offset` positions from where its keys
were rotated is met by rotating the *query* back: q . R(offset) k = (R(-offset) q) . k. Partial
results are merged by their log-sum-exp. The plan is made once a forward pass and used by every
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Positions
from leyline_agent.serving.kernels.partial import merge_into, partial_attention
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["AttentionPlan", "Step", "plan_attention", "segment_attention"]

# Up to this many runs of queries are attended to one by one; more (scattered repair) share
# masked calls, which cost arithmetic on hidden keys but far fewer calls.
_MAX_SEPARATE_RUNS = 4
_LONG_RUN = 64


@dataclass(frozen=True)
class Step:
    """One partial attention call.

    Attributes:
        start, end: the slots whose keys are attended to.
        queries: which queries attend: a slice, or indices of scattered ones.
        offset: the segment's position offset.
        causal: query i of the step sees its first i + 1 keys.
        mask: additive [queries, keys], or None when every query sees every key.
    """

    start: int
    end: int
    queries: slice | Tensor
    offset: int = 0
    causal: bool = False
    mask: Tensor | None = None


@dataclass(frozen=True)
class AttentionPlan:
    """How one forward pass attends.

    Attributes:
        steps: the calls; together they show every query exactly the keys up to its position.
        tables: offset -> float32 cosines and signed sines [rotary_dim] of -offset.
        alone: one query, as in decoding, and every step shows it all of its keys.
        turns: for a query alone, the rows of `tables` that its steps need [steps, 1, 1, dim]; None
            where none has an offset.
    """

    steps: tuple[Step, ...]
    tables: dict[int, tuple[Tensor, Tensor]]
    rope: RopeSpec | None = None
    alone: bool = False
    turns: tuple[Tensor, Tensor] | None = None


def plan_attention(
    segments: Sequence[Segment],
    positions: Positions,
    rope: RopeSpec | None,
    *,
    window: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> AttentionPlan:
    """Plan attention of queries at `positions` (ascending) over `segments`.

    The slots of the query positions are part of the segments; keys behind the last query are
    left alone. With a sliding `window`, query p sees keys in (p - window, p]. `dtype` and `device`
    are the queries'.
    """
    runs = _runs(positions)
    separate = [r for r in runs if window is None and (r[1] - r[0] >= _LONG_RUN)]
    if window is None and len(runs) <= _MAX_SEPARATE_RUNS:
        separate = runs
    grouped = [r for r in runs if r not in separate]
    steps: list[Step] = []
    at = 0
    for segment in segments:
        if at > positions[-1]:
            break
        for run in separate:
            steps.extend(_steps_of_run(segment, at, run, int(positions[run[0]])))
        if grouped:
            steps.extend(_masked_step(segment, at, grouped, positions, window, dtype, device))
        at += segment.length
    offsets = sorted({step.offset for step in steps})
    alone = len(positions) == 1 and not grouped
    if rope is None or offsets == [0]:
        return AttentionPlan(tuple(steps), {}, rope, alone)
    turns_back = rope.tables(torch.tensor([-offset for offset in offsets]))
    cos, sin = (table.to(device) for table in turns_back)
    tables = {offset: (cos[i], sin[i]) for i, offset in enumerate(offsets)}
    turns = None
    if alone:
        index = [offsets.index(step.offset) for step in steps]
        turns = cos[index][:, None, None], sin[index][:, None, None]
    return AttentionPlan(tuple(steps), tables, rope, alone, turns)


def _runs(positions: Positions) -> list[tuple[int, int]]:
    """Query index ranges [i, j) of consecutive positions."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    edges = [0, *breaks.tolist(), len(positions)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _steps_of_run(segment: Segment, at: int, run: tuple[int, int], first: int) -> list[Step]:
    """Steps of queries [i, j) at positions first.. over one segment at logical position `at`."""
    i, j = run
    high = at + segment.length
    last = first + j - i
    # A lone query sees its own key like any earlier one: one call instead of two.
    visible = min(high, last if j - i == 1 else first)
    steps: list[Step] = []
    if visible > at:
        steps.append(Step(segment.slot, segment.slot + visible - at, slice(i, j), segment.offset))
    low, high = max(at, visible, first), min(high, last)
    if low < high:
        start, end = segment.slot + low - at, segment.slot + high - at
        own = slice(i + low - first, i + high - first)
        steps.append(Step(start, end, own, segment.offset, causal=high - low > 1))
        if high < last:
            steps.append(Step(start, end, slice(own.stop, j), segment.offset))
    return steps


def _masked_step(
    segment: Segment,
    at: int,
    runs: Sequence[tuple[int, int]],
    positions: Positions,
    window: int | None,
    dtype: torch.dtype,
    device: torch.device | str,
) -> list[Step]:
    """One step for all scattered queries that see anything of the segment."""
    index = np.concatenate([np.arange(i, j) for i, j in runs])
    seeing = positions[index] >= at
    if window is not None:
        seeing &= positions[index] - window < at + segment.length - 1
    index = index[seeing]
    if not len(index):
        return []
    where = positions[index]
    size = int(min(segment.length, where[-1] + 1 - at))
    keys = np.arange(at, at + size)
    hidden = keys[None, :] > where[:, None]
    if window is not None:
        hidden |= keys[None, :] <= where[:, None] - window
    mask = None
    if hidden.any():
        zeros = torch.zeros(hidden.shape, dtype=dtype)
        mask = zeros.masked_fill_(torch.from_numpy(hidden), float("-inf")).to(device)
    queries = torch.from_numpy(index).to(device)
    return [Step(segment.slot, segment.slot + size, queries, segment.offset, mask=mask)]


def segment_attention(
    query: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan, scale: float
) -> Tensor:
    """Attention output [m, heads, d] of `query` [heads, m, d] over stored keys and values.

    Args:
        query: rotated at its logical positions.
        keys: the layer's store [slots, kv_heads, d]; new keys are already written.
        values: the layer's store [slots, kv_heads, d_v].
        plan: made by `plan_attention`.
        scale: factor on the scores.
    """
    heads, num_queries, _ = query.shape
    if len(plan.steps) == 1:
        only = plan.steps[0]
        if isinstance(only.queries, slice) and only.offset == 0:
            out, _ = _attend(query, keys, values, only, scale)
            return out.transpose(0, 1)
    if plan.alone:
        return _attend_alone(query, keys, values, plan, scale).transpose(0, 1)
    out32 = query.new_zeros((heads, num_queries, values.shape[-1]), dtype=torch.float32)
    lse = query.new_full((heads, num_queries), float("-inf"), dtype=torch.float32)
    rotated: dict[int, Tensor] = {0: query}
    for step in plan.steps:
        if step.offset not in rotated:
            rotated[step.offset] = _rotated(query, plan, step.offset)
        part_query = rotated[step.offset][:, step.queries]
        part, part_lse = _attend(part_query, keys, values, step, scale)
        if isinstance(step.queries, slice):
            merge_into(out32[:, step.queries], lse[:, step.queries], part, part_lse)
        else:
            merged, merged_lse = out32[:, step.queries], lse[:, step.queries]
            merge_into(merged, merged_lse, part, part_lse)
            out32[:, step.queries], lse[:, step.queries] = merged, merged_lse
    return out32.to(query.dtype).transpose(0, 1)


def _attend_alone(
    query: Tensor, keys: Tensor, values: Tensor, plan: AttentionPlan, scale: float
) -> Tensor:
    """Output [heads, 1, d_v] of one query: turned for all steps at once, and merged at once.

    A step is a small call; so many operations a step would take as long as its attention.
    """
    turned = query.expand(len(plan.steps), -1, -1, -1)
    if plan.turns is not None and plan.rope is not None:
        turned = plan.rope.rotate(turned, *plan.turns)
    elif any(step.offset for step in plan.steps):
        raise _no_rope(next(step.offset for step in plan.steps if step.offset))
    parts = [
        _attend(one, keys, values, step, scale)
        for one, step in zip(turned, plan.steps, strict=True)
    ]
    weights = torch.stack([lse for _, lse in parts]).softmax(0)[..., None]
    out = torch.stack([out for out, _ in parts]).float().mul_(weights).sum(0)
    return out.to(query.dtype)


def _rotated(query: Tensor, plan: AttentionPlan, offset: int) -> Tensor:
    if plan.rope is None:
        raise _no_rope(offset)
    return plan.rope.rotate(query, *plan.tables[offset])


def _no_rope(offset: int) -> ValueError:
    return ValueError(f"a segment with offset {offset} needs a rope to rotate queries by")


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, step: Step, scale: float
) -> tuple[Tensor, Tensor]:
    """Partial attention of query heads [heads, m, d], grouped onto the key heads."""
    heads, size, dim = query.shape
    key = keys[step.start : step.end].transpose(0, 1)[:, None]
    value = values[step.start : step.end].transpose(0, 1)[:, None]
    groups = heads // key.shape[0]
    if step.causal or step.mask is not None:
        grouped = query.view(-1, groups, size, dim)
        key, value = key.expand(-1, groups, -1, -1), value.expand(-1, groups, -1, -1)
    else:
        # The query heads of one key head become extra rows: one pass over each key head.
        grouped = query.reshape(-1, 1, groups * size, dim)
    out, lse = partial_attention(
        grouped, key, value, scale=scale, causal=step.causal, mask=step.mask
    )
    return out.reshape(heads, size, -1), lse.reshape(heads, size)
