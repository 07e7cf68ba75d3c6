"""What the host looks at before a kernel runs: types, devices, strides, slots."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from leyline_agent.errors import EngineError

__all__ = ["DTYPES", "Slots", "check_slots", "check_tensors"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

Slots = np.ndarray[tuple[int], np.dtype[np.int64]]


def check_tensors(kernel: str, **tensors: Tensor) -> None:
    """Tensors of one known type on one device, their last dimensions contiguous.

    Raises:
        EngineError: names the kernel and the tensor.
    """
    first, *_ = tensors
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise EngineError(
                f"{kernel}: {name} is {tensor.dtype}; the kernels know float32, float16, bfloat16"
            )
        for kind in ("dtype", "device"):
            ours, theirs = getattr(tensor, kind), getattr(tensors[first], kind)
            if ours != theirs:
                raise EngineError(f"{kernel}: {name} is {ours} and {first} is {theirs}; use one")
        if tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise EngineError(
                f"{kernel}: the last dimension of {name} is not contiguous (strides "
                f"{tensor.stride()}); pass {name}.contiguous()"
            )


def check_slots(name: str, slots: Slots, num_slots: int, *, distinct: bool = True) -> None:
    """Slots in [0, num_slots), no two the same where they are written to.

    Raises:
        EngineError: names the slots and the first that is wrong.
    """
    wrong = np.flatnonzero((slots < 0) | (slots >= num_slots))
    if len(wrong):
        raise EngineError(
            f"{name}[{wrong[0]}] is slot {slots[wrong[0]]}, and there are {num_slots}; the first "
            "is 0"
        )
    if distinct and len(slots) > 1:
        ordered = np.sort(slots)
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            raise EngineError(f"{name} has slot {ordered[twice[0]]} twice; one row goes into each")
