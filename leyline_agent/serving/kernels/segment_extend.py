"""Segment extend attention: chunked prefill and repair.

Queries stand at any ascending logical positions, a run or scattered, and see the keys up to their
own position: causal by position, over cached segments and over the new tokens, which are stored
first. Sequences of any number of queries share a launch. Tiles of queries see what their last one
sees, and masks by position hide from the others what lies behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.segment_blocks import Blocks
from leyline_agent.serving.kernels.segment_launch import attend_once
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["segment_attention_reference", "segment_extend"]


def segment_extend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Sequence[Rows],
    *,
    rope: RopeSpec | None,
    scale: float,
    window: int | None = None,
    blocks: Blocks | None = None,
    programs: int | None = None,
) -> Tensor:
    """Attention [total, heads, d_v] of all sequences' queries, in the query's type.

    Args:
        query: [heads, total, d], rotated at its logical positions, the sequences' rows one behind
            the other; float32, float16 or bfloat16. Any strides but the last.
        keys: the layer's store [slots, kv_heads, d] of the same type; the queries' own keys are
            already written.
        values: the layer's store [slots, kv_heads, d_v]; for latents (MLA) the view of the keys'
            last entries.
        batch: positions and segments of each sequence.
        rope: turns queries to where a segment's keys were rotated; None where none moved.
        scale: factor on the scores.
        window: a query at p sees keys in (p - window, p].
        blocks: how programs are cut, instead of what suits the heads.
        programs: how many programs to deal keys to, instead of what fills the device.

    Raises:
        EngineError: names the tensor, the segment or the query that is wrong.
    """
    return attend_once(
        query,
        keys,
        values,
        batch,
        decode=False,
        rope=rope,
        scale=scale,
        window=window,
        blocks=blocks,
        programs=programs,
    )


def segment_attention_reference(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: Sequence[Rows],
    *,
    rope: RopeSpec | None,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """What decode and extend compute, in float64: every key turned, then plain softmax.

    Arguments as `segment_extend`'s. Returns float64 [total, heads, d_v].
    """
    parts = []
    at = 0
    group = query.shape[0] // keys.shape[1]
    for segments, positions in batch:
        slots = torch.cat([torch.arange(s.slot, s.slot + s.length) for s in segments])
        offsets = torch.cat([torch.full((s.length,), s.offset) for s in segments])
        key = _turned(keys[slots.to(keys.device)].double(), offsets, rope)
        value = values[slots.to(keys.device)].double()
        where = torch.from_numpy(positions).to(keys.device)
        own = query[:, at : at + len(where)].double()
        scores = torch.einsum("hmd,nhd->hmn", own, key.repeat_interleave(group, 1)) * scale
        place = torch.arange(len(slots), device=keys.device)
        hidden = place > where[:, None]
        if window is not None:
            hidden |= place <= where[:, None] - window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        parts.append(torch.einsum("hmn,nhd->mhd", weights, value.repeat_interleave(group, 1)))
        at += len(where)
    return torch.cat(parts)


def _turned(key: Tensor, offsets: Tensor, rope: RopeSpec | None) -> Tensor:
    """Float64 `key` [n, heads, d] turned by `offsets` [n]."""
    if rope is None:
        return key
    cos, sin = (table[:, None].to(key.device) for table in rope.tables(offsets, torch.float64))
    return rope.rotate(key, cos, sin)
