"""Segment decode attention: one query token a sequence, each sequence with segments of its own.

The keys of a sequence are dealt to as many programs as fill the device (split-KV); a second
kernel merges their partial results by log-sum-exp. What a program reads is in `work_list.py`, how
it computes in `segment_kernel.py`. `segment_attention_reference` in `segment_extend.py` is the same
in plain float64.

Latents (MLA) are keys of one head whose last entries are the values: pass `values` as the view
keys[..., rope_dim:] and nothing is read twice. The query is absorbed, [heads, total, 64 + 512],
the rotated part first; more heads than a program has rows for are cut into chunks.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.segment_blocks import Blocks
from leyline_agent.serving.kernels.segment_launch import attend_once
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["segment_decode"]


def segment_decode(
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
    """Attention [sequences, heads, d_v] of one query a sequence, in the query's type.

    Args:
        query: [heads, sequences, d], rotated at its logical position; float32, float16 or
            bfloat16. Any strides but the last.
        keys: the layer's store [slots, kv_heads, d] of the same type; the queries' own keys are
            already written.
        values: the layer's store [slots, kv_heads, d_v].
        batch: one query position and the segments a sequence.
        rope: turns queries to where a segment's keys were rotated; None where none moved.
        scale: factor on the scores.
        window: a query at p sees keys in (p - window, p].
        blocks: how programs are cut, instead of what suits the heads.
        programs: how many programs to deal keys to, instead of what fills the device.

    Raises:
        EngineError: names the tensor, the segment or the query that is wrong.
    """
    several = [at for at, rows in enumerate(batch) if len(rows.positions) != 1]
    if several:
        raise EngineError(
            f"sequence {several[0]} has {len(batch[several[0]].positions)} queries; decode takes "
            "one a sequence, segment_extend any number"
        )
    return attend_once(
        query,
        keys,
        values,
        batch,
        decode=True,
        rope=rope,
        scale=scale,
        window=window,
        blocks=blocks,
        programs=programs,
    )
