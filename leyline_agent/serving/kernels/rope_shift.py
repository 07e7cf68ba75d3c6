"""Rope shift: gather keys, rotate each by its delta, scatter.

    keys  [rows, kv_heads, d]    row source[i], rotated at some position p
    out   [rows, kv_heads, d]    goes to row target[i], as if rotated at p + delta[i]

The shift is planned once, on the host, and used for every layer. Deltas are from the position a
key was rotated at in the beginning: rotating a rotated key again adds up rounding, which hundreds
of edits would make a large error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.checks import Slots, check_slots, check_tensors
from leyline_agent.serving.kernels.dispatch import choose
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["Shift", "plan_shift", "rope_shift", "rope_shift_reference"]


@dataclass(frozen=True)
class Shift:
    """Which rows go where, and how far each is turned.

    Attributes:
        source: int64 [n], rows of the keys.
        target: int64 [n], rows of the output, all different; None for 0, 1, ..., n - 1.
        turn: int64 [n], rows of the tables.
        cos, sin: `RopeSpec.tables` [m, rotary_dim] of the m distinct deltas.
        rope: how keys are rotated.
        rows: `source` and `target` on the host, both [n].
    """

    source: Tensor
    target: Tensor | None
    turn: Tensor
    cos: Tensor
    sin: Tensor
    rope: RopeSpec
    rows: tuple[Slots, Slots]

    @cached_property
    def turns(self) -> tuple[Tensor, Tensor]:
        """Each row's cosines and sines [n, 1, rotary_dim], for torch; layers share them."""
        return self.cos[self.turn][:, None], self.sin[self.turn][:, None]

    @cached_property
    def num_rows(self) -> tuple[int, int]:
        """How many rows the keys and the output must have."""
        read, written = self.rows
        return int(read.max(initial=-1)) + 1, int(written.max(initial=-1)) + 1

    @cached_property
    def in_place(self) -> bool:
        """Whether every row stays where it is."""
        return np.array_equal(*self.rows)

    @cached_property
    def overlaps(self) -> bool:
        """Whether a row is written that another one comes from."""
        read, written = self.rows
        sources, counts = np.unique(read, return_counts=True)
        at = np.searchsorted(sources, written).clip(max=len(sources) - 1)
        readers = np.where(sources[at] == written, counts[at], 0)
        return bool((readers > (read == written)).any())


def plan_shift(
    source: Slots,
    target: Slots | None,
    deltas: Slots,
    rope: RopeSpec,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Shift:
    """Plan to move rows `source` [n] to rows `target` [n], turned by `deltas` [n].

    Args:
        source: rows to read.
        target: rows to write, all different; None for 0, 1, ..., n - 1.
        deltas: how many positions each key moves on, or back; from where it was rotated first.
        rope: how keys are rotated.
        dtype: of the keys. Those of 16 bits are rotated in float32, float32 ones in float64.
        device: where the keys are.

    Raises:
        EngineError: arrays of different lengths, a negative row, or one written twice.
    """
    written = np.arange(len(source)) if target is None else target
    if not len(source) == len(written) == len(deltas):
        raise EngineError(
            f"plan_shift: source has {len(source)} rows, target {len(written)} and deltas "
            f"{len(deltas)}; give one each"
        )
    if len(source) and source.min() < 0:
        raise EngineError(f"plan_shift: source row {source.min()}; the first is 0")
    if target is not None:
        check_slots("plan_shift: target", target, int(target.max(initial=0)) + 1)
    distinct, turn = np.unique(deltas, return_inverse=True)
    wide = torch.float64 if dtype == torch.float32 else torch.float32
    cos, sin = rope.tables(torch.from_numpy(distinct), wide)
    return Shift(
        torch.from_numpy(source).to(device),
        None if target is None else torch.from_numpy(target).to(device),
        torch.from_numpy(turn).to(device),
        cos.to(device),
        sin.to(device),
        rope,
        (source, written),
    )


def rope_shift(keys: Tensor, out: Tensor, shift: Shift) -> None:
    """Carry out a shift on one layer: Triton's kernel or torch, as `choose` says.

    A result differs from the exact one by at most 1 ulp of the stored type, at the length of the
    rotated pair. Dimensions behind the rotary ones are copied.

    Args:
        keys: [rows, kv_heads, d]; float32, float16 or bfloat16, the last dimension contiguous.
        out: the same but for the number of rows. It may be `keys`, or share its memory: rows that
            would be overwritten before they are read go through a buffer.
        shift: planned for the type and the device of both.

    Raises:
        EngineError: a tensor of another type, device or shape, or too few rows.
    """
    _check(keys, out, shift)
    if not len(shift.source):
        return
    if choose(out.device).kernels == "torch":
        rope_shift_reference(keys, out, shift)
        return
    from leyline_agent.serving.kernels.rope_shift_kernel import launch

    same = keys.data_ptr() == out.data_ptr() and keys.stride() == out.stride()
    shares = keys.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
    if shares and (shift.overlaps or not same):
        buffer = out.new_empty((len(shift.source), *out.shape[1:]))
        launch(keys, buffer, shift, None, copy_rest=True)
        _put(out, shift, buffer)
    else:
        launch(keys, out, shift, shift.target, copy_rest=not (same and shift.in_place))


def rope_shift_reference(keys: Tensor, out: Tensor, shift: Shift) -> None:
    """The same with torch's operators: the reference, and the path for other devices."""
    _put(out, shift, shift.rope.rotate(keys.index_select(0, shift.source), *shift.turns))


def _put(out: Tensor, shift: Shift, rows: Tensor) -> None:
    if shift.target is None:
        out[: len(rows)] = rows
    else:
        out.index_copy_(0, shift.target, rows)


def _check(keys: Tensor, out: Tensor, shift: Shift) -> None:
    check_tensors("rope_shift", keys=keys, out=out)
    if keys.dim() != 3 or out.dim() != 3 or keys.shape[1:] != out.shape[1:]:
        raise EngineError(
            f"rope_shift: keys {tuple(keys.shape)} and out {tuple(out.shape)} do not fit; needed "
            "are [rows, kv_heads, d] twice"
        )
    wide = shift.cos.dtype == torch.float64
    if shift.source.device != keys.device or wide != (keys.dtype == torch.float32):
        raise EngineError(
            f"rope_shift: keys are {keys.dtype} on {keys.device}; the shift was planned for "
            f"{'float32' if wide else '16 bits'} on {shift.source.device}"
        )
    if shift.rope.rotary_dim > keys.shape[-1]:
        raise EngineError(
            f"rope_shift: keys have {keys.shape[-1]} dimensions; the rope rotates "
            f"{shift.rope.rotary_dim}"
        )
    for name, rows, needed in zip(("keys", "out"), (keys, out), shift.num_rows, strict=True):
        if len(rows) < needed:
            raise EngineError(f"rope_shift: {name} has {len(rows)} rows; row {needed - 1} is used")
