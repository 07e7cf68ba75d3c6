"""Segment attention by Triton: decode, chunked prefill and repair, over segments at any offsets.

Queries stand at any ascending logical positions, a run or scattered, and see the keys up to their
own position: causal by position, over cached segments and over the new tokens, which are stored
first. Sequences of any number of queries share a launch. The keys of a sequence are dealt to as
many programs as fill the device (split-KV); a second kernel merges their partial results by
log-sum-exp. What a program reads is in `work_list.py`, how it computes in `segment_kernel.py`.

Latents (MLA) are keys of one head whose last entries are the values: pass `values` as the view
keys[..., rope_dim:] and nothing is read twice. The query is absorbed, [heads, total, 64 + 512],
the rotated part first; more heads than a program has rows for are cut into chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.segment_blocks import (
    Blocks,
    HeadShape,
    choose_blocks,
    tiling_of,
)
from leyline_agent.serving.kernels.segment_launch import Tables, launch, num_programs, upload
from leyline_agent.serving.kernels.work_list import lay_out, make_work_list
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["segment_attend", "segment_attention_reference"]


def segment_attend(
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

    Plans, uploads and launches for one layer; `TritonBackend` plans once for all of them. A batch
    of one query a sequence is cut as decode is, any other as extend.

    Args:
        query: [heads, total, d], rotated at its logical positions, the sequences' rows one behind
            the other; float32, float16 or bfloat16. Any strides but the last.
        keys: the layer's store [slots, kv_heads, d] of the same type; the queries' own keys are
            already written.
        values: the layer's store [slots, kv_heads, d_v].
        batch: positions and segments of each sequence.
        rope: turns queries to where a segment's keys were rotated; None where none moved.
        scale: factor on the scores.
        window: a query at p sees keys in (p - window, p].
        blocks: how programs are cut, instead of what suits the heads.
        programs: how many programs to deal keys to, instead of what fills the device.

    Raises:
        EngineError: names the tensor, the segment or the query that is wrong.
    """
    shape = HeadShape.of(query, keys, values)
    counts = [len(rows.positions) for rows in batch]
    if sum(counts) != query.shape[1]:
        raise EngineError(f"query has {query.shape[1]} rows and the batch {sum(counts)}")
    decode = all(count == 1 for count in counts)
    blocks = blocks or choose_blocks(shape, keys.dtype, decode=decode)
    tiling = tiling_of(shape, blocks, programs or num_programs(keys.device))
    firsts = np.cumsum([0, *counts])[:-1].tolist()
    layout = lay_out(batch, tiling.keys)
    work = make_work_list(batch, firsts, layout, tiling, window=window)
    positions = np.concatenate([rows.positions for rows in batch])
    (device_work,), (where,) = upload([(work, Tables(rope, keys.device))], keys.device, [positions])
    out = query.new_empty((query.shape[1], shape.heads, shape.value_dim))
    launch(
        query,
        keys,
        values,
        out,
        device_work,
        where,
        shape=shape,
        blocks=blocks,
        rope=rope,
        scale=scale,
        window=window,
    )
    return out


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
    """The same in plain float64, [total, heads, d_v]: every key turned, then softmax."""
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
