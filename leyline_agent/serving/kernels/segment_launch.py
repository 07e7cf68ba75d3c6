"""The host's side of segment attention: how a head is cut, what kernels are handed, their launch.

shape = HeadShape.of(query, keys, values)       checks the tensors
blocks = choose_blocks(shape, dtype, ...)       how a program is cut
work = make_work_list(...)                      on the host, once a forward pass
device_work = upload([(work, tables)], device)    one copy, nothing waits for it
launch(..., device_work, ...)                   once a layer
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.segment_blocks import Blocks, HeadShape, constants
from leyline_agent.serving.kernels.segment_kernel import merge_kernel, segment_kernel
from leyline_agent.serving.kernels.triton_math import INTERPRETED
from leyline_agent.serving.kernels.work_list import Ints, WorkList
from leyline_agent.serving.models.rope import RopeSpec

__all__ = [
    "DeviceWork",
    "Tables",
    "launch",
    "num_programs",
    "pack",
    "to_device",
    "unpack",
    "upload",
]

_NO_WINDOW = 2**31 - 1


class Tables:
    """Cosines and sines of offsets on the device, kept for as long as the same ones are asked for.

    Args:
        rope: how keys are rotated; None where none can be moved.
        device: where the tables go.
        kept: how many sets of offsets are kept.
    """

    def __init__(self, rope: RopeSpec | None, device: torch.device, kept: int = 8) -> None:
        self.rope = rope
        self.device = device
        self.kept = kept
        self._tables: dict[bytes, Tensor] = {}

    def of(self, offsets: Ints) -> Tensor | None:
        """Float32 [2, rows, rotary_dim] of -offset, made in float64; None if none turns.

        Raises:
            EngineError: an offset, and no rope to turn by.
        """
        moved = offsets[offsets != 0]
        if not len(moved):
            return None
        if self.rope is None:
            raise EngineError(
                f"a segment stands {moved[0]} positions from where its keys were rotated, and no "
                "rope moves it"
            )
        name = offsets.tobytes()
        tables = self._tables.pop(name, None)
        if tables is None:
            tables = torch.stack(self.rope.tables(torch.from_numpy(-offsets))).to(self.device)
        self._tables[name] = tables
        if len(self._tables) > self.kept:
            del self._tables[next(iter(self._tables))]
        return tables


@dataclass(frozen=True)
class DeviceWork:
    """A work list where the kernels read it: int32, and the tables of its offsets."""

    items: Tensor
    merges: Tensor
    runs: Tensor
    spans: Tensor
    tables: Tensor | None
    split: bool
    end_slot: int


def pack(arrays: Sequence[Ints]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Integer arrays one behind the other as int32, each aligned to 16 bytes."""
    starts = _starts([array.size for array in arrays])
    packed = np.zeros(starts[-1], np.int32)
    for array, start in zip(arrays, starts[:-1], strict=True):
        packed[start : start + array.size] = array.ravel()
    return packed


def unpack(packed: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """The arrays of `pack`, by their shapes, as views."""
    sizes = [math.prod(shape) for shape in shapes]
    starts = _starts(sizes)[:-1]
    return [
        packed[start : start + size].view(shape)
        for start, size, shape in zip(starts, sizes, shapes, strict=True)
    ]


def _starts(sizes: Sequence[int]) -> list[int]:
    """Where arrays of these sizes begin when each is aligned, and where the last one ends."""
    return [0, *accumulate(-(-size // 4) * 4 for size in sizes)]


def to_device(array: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """The array on the device; nothing waits for the transfer."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def upload(
    works: Sequence[tuple[WorkList, Tables]], device: torch.device, more: Sequence[Ints] = ()
) -> tuple[list[DeviceWork], list[Tensor]]:
    """Work lists with what turns them, and more integer arrays of the same pass, on `device`."""
    arrays = [a for w, _ in works for a in (w.items, w.merges, w.keys.runs, w.keys.spans)]
    arrays += more
    tensors = unpack(to_device(pack(arrays), device), [a.shape for a in arrays])
    result = []
    for at, (work, tables) in enumerate(works):
        items, merges, runs, spans = tensors[4 * at : 4 * at + 4]
        turns = tables.of(work.keys.offsets)
        result.append(DeviceWork(items, merges, runs, spans, turns, work.split, work.keys.end_slot))
    return result, tensors[4 * len(works) :]


def num_programs(device: torch.device) -> int:
    """How many programs a device runs at a time: two a multiprocessor, for one hides the other."""
    if device.type != "cuda":
        return 8  # interpreted, one after the other; a few, so that results are merged
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count


def launch(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    out: Tensor,
    work: DeviceWork,
    positions: Tensor,
    *,
    shape: HeadShape,
    blocks: Blocks,
    rope: RopeSpec | None,
    scale: float,
    window: int | None = None,
) -> None:
    """Attend: rows of `out` [total, heads, d_v] that the work list names are written.

    Args:
        query: [heads, total, d], turned to its logical positions.
        keys: [slots, kv_heads, d]; the queries' own are already written.
        values: [slots, kv_heads, d_v].
        out: contiguous.
        work: made for `blocks` and `window`.
        positions: int32 logical positions [total]; read where items have several queries.
        shape: of these tensors.
        blocks: how programs are cut.
        rope: how keys are rotated.
        scale: factor on the scores.
        window: a query at p sees keys in (p - window, p].

    Raises:
        EngineError: the work list names slots that `keys` does not have, or the rope turns more
            than a head has.
    """
    if work.end_slot > len(keys):
        raise EngineError(
            f"the segments reach slot {work.end_slot - 1} and keys has {len(keys)} slots"
        )
    num_items = len(work.items)
    rotary = rope.rotary_dim if rope is not None else 0
    if rotary > shape.dim:
        raise EngineError(f"heads of {shape.dim} entries cannot be turned in {rotary}")
    interleaved = rope is not None and rope.pairing == "interleaved"
    fixed = constants(shape, blocks, rotary, interleaved=interleaved)
    parts, sums = out, out
    if work.split:
        size = (num_items * blocks.queries, shape.heads)
        parts = out.new_empty((*size, shape.value_dim), dtype=torch.float32)
        sums = out.new_empty(size, dtype=torch.float32)
    tables = work.tables if work.tables is not None else query
    segment_kernel[(num_items, shape.kv_heads * -(-shape.group // blocks.heads))](
        query, keys, values, parts, sums, work.items, work.runs, work.spans, positions, tables,
        scale * math.log2(math.e), _NO_WINDOW if window is None else window,
        work.spans.shape[1], tables.shape[1],
        query.stride(0), query.stride(1), *keys.stride()[:2], *values.stride()[:2],
        **fixed,
        TURNS=work.tables is not None, SPANS=work.spans.shape[1] > 0, SPLIT=work.split,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    if work.split:
        num_merges, block = len(work.merges), 64 if INTERPRETED else 1
        merge_kernel[(-(-num_merges * shape.heads // block),)](
            parts, sums, out, work.merges, num_merges, HEADS=shape.heads, D_V=shape.value_dim,
            QUERIES=blocks.queries, BLOCK_R=block, BLOCK_P=16, BLOCK_V=fixed["BLOCK_V"],
        )  # fmt: skip
