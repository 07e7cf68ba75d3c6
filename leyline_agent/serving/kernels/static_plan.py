"""Static plans: decode passes of fixed capacity, always in the same memory.

A captured graph reads where it read when it was captured. So a plan step fills buffers that never
move, and the captured run is repeated:

    plan = StaticPlan(backend, Capacity(rows=8), moved=True)
    plan.fill(batch)            every pass; False if the batch does not fit: run it eagerly
    graph.replay()              runs backend.store and backend.attend over `plan`, layer by layer

Rows beyond the batch are padding: nothing is stored for them and zeros come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.checks import check_slots
from leyline_agent.serving.kernels.segment_blocks import choose_blocks, tiling_of
from leyline_agent.serving.kernels.segment_launch import DeviceWork, pack, to_device, unpack
from leyline_agent.serving.kernels.triton_backend import TritonBackend, TritonPlan
from leyline_agent.serving.kernels.work_list import Ints, WorkList, lay_out, make_work_list

__all__ = ["Capacity", "StaticPlan"]


class Capacity(NamedTuple):
    """What a static plan holds at most; a row is a sequence's one new token.

    Attributes:
        rows: sequences.
        runs: segments long enough to be read as they lie, of all sequences.
        spans: tokens of short segments, of all sequences.
        offsets: distinct position offsets.
    """

    rows: int
    runs: int = 1024
    spans: int = 8192
    offsets: int = 512


class StaticPlan(TritonPlan):
    """A `TritonPlan` that is filled again for every pass.

    Args:
        backend: has attended in every layer before, so that it knows the heads.
        capacity: what fits.
        moved: whether segments may have offsets or be short; without, the kernels are quicker.
    """

    def __init__(self, backend: TritonBackend, capacity: Capacity, *, moved: bool) -> None:
        self.backend = backend
        self.capacity = capacity
        self.moved = moved
        self.kinds = tuple(backend.kinds)
        self._tilings = []
        self._shapes: list[tuple[int, ...]] = []
        for kind in self.kinds:
            blocks = choose_blocks(kind.shape, backend.kv.dtype, decode=True)
            tiling = tiling_of(kind.shape, blocks, backend.programs)
            self._tilings.append(tiling)
            num_items = max(tiling.items, capacity.rows)
            num_spans = capacity.spans if moved else 0
            self._shapes += [(num_items, 8), (capacity.rows, 4), (capacity.runs, 4), (3, num_spans)]
        self._shapes += [(capacity.rows,), (2 * capacity.rows,)]
        self._offsets = b""
        self._buffer, self._tables = self._allocate()
        *tensors, positions, pairs = unpack(self._buffer, self._shapes)
        works = {}
        for at, kind in enumerate(self.kinds):
            items, merges, runs, spans = tensors[4 * at : 4 * at + 4]
            turns = None if self._tables is None else self._tables[kind.rope]
            work = DeviceWork(items, merges, runs, spans, turns, split=True, end_slot=0)
            works[kind] = [(True, work)]
        slots = pairs.view(torch.int64)
        super().__init__([], slots, positions, (0.0,) * capacity.rows, works, static=True)

    def _allocate(self) -> tuple[Tensor, Tensor | None]:
        """Memory that stays: of the arrays, and of the tables of offsets."""
        device, ropes = self.backend.kv.device, self.backend.ropes
        size = len(pack([np.zeros(shape, np.int64) for shape in self._shapes]))
        tables = None
        if self.moved and ropes[0] is not None:
            shape = (len(ropes), 2, self.capacity.offsets, ropes[0].rotary_dim)
            tables = torch.zeros(shape, device=device)
        return torch.zeros(size, dtype=torch.int32, device=device), tables

    def fill(self, batch: Sequence[Rows]) -> bool:
        """Plan `batch`, one query a sequence; False, and nothing changed, if it does not fit.

        Raises:
            EngineError: slots that the store does not have.
        """
        if len(batch) > self.capacity.rows:
            return False
        slots = np.concatenate([rows.slots for rows in batch])
        check_slots("slots", slots, self.backend.kv.num_slots)
        works = self._works(batch)
        arrays = [a for w in works for a in (w.items, w.merges, w.keys.runs, w.keys.spans)]
        offsets = works[0].keys.offsets
        turns = bool(offsets.any())
        fits = all(
            size <= most
            for array, shape in zip(arrays, self._shapes, strict=False)
            for size, most in zip(array.shape, shape, strict=True)
        )
        if not fits or len(offsets) > self.capacity.offsets or (turns and self._tables is None):
            return False
        positions = np.concatenate([rows.positions for rows in batch])
        padded = [_padded(a, shape) for a, shape in zip(arrays, self._shapes, strict=False)]
        for merges in padded[1::4]:
            merges[len(batch) :, 0] = np.arange(len(batch), self.capacity.rows)
        padded.append(_padded(positions, (self.capacity.rows,)))
        padded.append(_padded(slots, (self.capacity.rows,), -1).view(np.int32))
        self._buffer.copy_(to_device(pack(padded), self._buffer.device))
        self._turn(offsets)
        return True

    def _works(self, batch: Sequence[Rows]) -> list[WorkList]:
        layouts = {t.keys: lay_out(batch, t.keys) for t in self._tilings}
        rows = range(len(batch))
        return [
            make_work_list(batch, rows, layouts[tiling.keys], tiling, window=kind.window)
            for kind, tiling in zip(self.kinds, self._tilings, strict=True)
        ]

    def _turn(self, offsets: Ints) -> None:
        """Bring the tables up to date; most passes have the offsets of the one before."""
        if self._tables is None or offsets.tobytes() == self._offsets:
            return
        deltas = torch.from_numpy(-offsets)
        made = [torch.stack(rope.tables(deltas)) for rope in self.backend.ropes if rope is not None]
        tables = torch.stack(made).numpy()
        self._tables[:, :, : len(offsets)] = to_device(tables, self._tables.device)
        self._offsets = offsets.tobytes()


def _padded(array: Ints, shape: tuple[int, ...], value: int = 0) -> Ints:
    result = np.full(shape, value, np.int64)
    result[tuple(slice(size) for size in array.shape)] = array
    return result
