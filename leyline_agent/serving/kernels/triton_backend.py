"""The Triton backend: a forward pass over a batch in two launches a layer, and no copies.

Sequences with one new token go to the decode kernel, the others to the extend kernel; both read
keys where they lie, whatever their offsets, so there are no working copies. All a pass needs of the
host (slots, positions, work lists) goes to the device in one transfer when it is planned.

Query heads are the model's affair and not known before the first layer attends. That first pass
plans while it attends; from then on `plan` does it for all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.checks import check_slots
from leyline_agent.serving.kernels.kv_store import kv_store
from leyline_agent.serving.kernels.kv_store_kernel import launch as write_checked
from leyline_agent.serving.kernels.segment_blocks import HeadShape, choose_blocks, tiling_of
from leyline_agent.serving.kernels.segment_launch import (
    DeviceWork,
    Tables,
    launch,
    num_programs,
    upload,
)
from leyline_agent.serving.kernels.work_list import Ints, KeyLayout, lay_out, make_work_list
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.models.rope import RopeSpec

if TYPE_CHECKING:
    from leyline_agent.serving.kernels.static_plan import StaticPlan

__all__ = ["TritonBackend", "TritonPlan"]


class _Kind(NamedTuple):
    """Layers of one kind share their work lists."""

    shape: HeadShape
    window: int | None
    rope: int


class _Side(NamedTuple):
    """The sequences of a batch that one kernel serves, and where their rows begin."""

    decode: bool
    batch: list[Rows]
    first_rows: list[int]


@dataclass
class TritonPlan:
    """One forward pass over a batch.

    Attributes:
        slots: int64 [total]: where the new keys and values go.
        positions: int32 [total]: the new tokens' logical positions.
        works: for each kind of layer what the kernels do, decode first, and whether it is decode.
        copy_us: zeros, for nothing is copied.
        static: whether its tensors are filled again; rows beyond the batch have slot -1 then.
    """

    sides: list[_Side]
    slots: Tensor
    positions: Tensor
    copy_us: tuple[float, ...]
    works: dict[_Kind, list[tuple[bool, DeviceWork]]] = field(default_factory=dict)
    static: bool = False


class TritonBackend:
    """Stores and attends with Triton kernels.

    Args:
        store: where keys and values live.
        rope: how keys are rotated; None where none can be moved.
        programs: how many programs to deal keys to, instead of what fills the device.
    """

    def __init__(
        self, store: KVStore, rope: RopeSpec | None, *, programs: int | None = None
    ) -> None:
        self.kv = store
        self.ropes = (None,) if rope is None else rope.kinds
        self.programs = programs or num_programs(store.device)
        self._tables = [Tables(one, store.device) for one in self.ropes]
        self.kinds: dict[_Kind, None] = {}

    def plan(self, batch: Sequence[Rows]) -> TritonPlan:
        """Deal the keys of all sequences to programs. Raises EngineError for slots not there."""
        sides = _sides(batch)
        slots = np.concatenate([rows.slots for rows in batch])
        check_slots("slots", slots, self.kv.num_slots)
        positions = np.concatenate([rows.positions for rows in batch])
        # Slots are 64 bits wide: as pairs they share the transfer of the others.
        works, (where, pairs) = self._works(sides, self.kinds, [positions, slots.view(np.int32)])
        return TritonPlan(sides, pairs.view(torch.int64), where, (0.0,) * len(batch), works)

    def _works(
        self, sides: Sequence[_Side], kinds: Iterable[_Kind], more: Sequence[Ints] = ()
    ) -> tuple[dict[_Kind, list[tuple[bool, DeviceWork]]], list[Tensor]]:
        """What the kernels do for each kind of layer, and `more` arrays, on the device."""
        made = []
        layouts: dict[tuple[bool, int], KeyLayout] = {}
        for kind in kinds:
            for decode, batch, first_rows in sides:
                blocks = choose_blocks(kind.shape, self.kv.dtype, decode=decode)
                tiling = tiling_of(kind.shape, blocks, self.programs)
                keys = layouts.get((decode, tiling.keys)) or lay_out(batch, tiling.keys)
                layouts[decode, tiling.keys] = keys
                work = make_work_list(batch, first_rows, keys, tiling, window=kind.window)
                made.append((kind, decode, work))
        turned = [(work, self._tables[kind.rope]) for kind, _, work in made]
        on_device, rest = upload(turned, self.kv.device, more)
        works: dict[_Kind, list[tuple[bool, DeviceWork]]] = {}
        for (kind, decode, _), placed in zip(made, on_device, strict=True):
            works.setdefault(kind, []).append((decode, placed))
        return works, rest

    def store(self, plan: TritonPlan, layer: int, key: Tensor, value: Tensor) -> None:
        """Write the rows' keys and values into their slots; of latents the keys alone."""
        latent = self.kv.layers[layer].latent
        values, own = (None, None) if latent else (self.kv.values[layer], value)
        write = write_checked if plan.static else kv_store
        write(self.kv.keys[layer], values, key, own, plan.slots)

    def attend(self, plan: TritonPlan, layer: int, query: Tensor, scale: float) -> Tensor:
        """Attention output [total, heads, d_v]. Raises EngineError for a query that cannot be."""
        keys, values = self.kv.keys[layer], self.kv.values[layer]
        shape, own = HeadShape.of(query, keys, values), self.kv.layers[layer]
        kind = _Kind(shape, own.window, own.rope)
        if kind not in plan.works:
            self.kinds[kind] = None
            plan.works |= self._works(plan.sides, [kind])[0]
        out = query.new_empty((query.shape[1], shape.heads, shape.value_dim))
        for decode, work in plan.works[kind]:
            launch(
                query,
                keys,
                values,
                out,
                work,
                plan.positions,
                shape=shape,
                blocks=choose_blocks(shape, self.kv.dtype, decode=decode),
                rope=self.ropes[kind.rope],
                scale=scale,
                window=kind.window,
            )
        return out

    def static_plan(self, rows: int, *, moved: bool) -> StaticPlan | None:
        """A decode plan that is filled again each pass; None before the first pass of its own."""
        from leyline_agent.serving.kernels.static_plan import Capacity, StaticPlan

        return StaticPlan(self, Capacity(rows), moved=moved) if self.kinds else None

    def drop(self) -> int:
        """Nothing is kept beside the slots."""
        return 0


def _sides(batch: Sequence[Rows]) -> list[_Side]:
    """The sequences with one new token, and the others; a side without any is left out."""
    sides = [_Side(True, [], []), _Side(False, [], [])]
    at = 0
    for rows in batch:
        side = sides[len(rows.positions) > 1]
        side.batch.append(rows)
        side.first_rows.append(at)
        at += len(rows.positions)
    return [side for side in sides if side.batch]
