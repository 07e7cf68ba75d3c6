"""Which kernels a device gets: Triton's on a GPU, torch's everywhere else.

    LEYLINE_KERNELS=auto     Triton on a GPU it can use, else torch; the default
    LEYLINE_KERNELS=torch    torch on every device
    LEYLINE_KERNELS=triton   Triton, or an error; on a CPU under its interpreter only

Nothing is imported before it is needed: without a GPU this needs no Triton.
"""

from __future__ import annotations

import functools
import logging
import os
import subprocess
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from leyline_agent.errors import EngineError

if TYPE_CHECKING:
    import torch

    from leyline_agent.serving.kernels.backend import AttentionBackend
    from leyline_agent.serving.kv.slots import SlotPool
    from leyline_agent.serving.kv.store import KVStore
    from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["VARIABLE", "Choice", "Kernels", "choose", "make_backend"]

Kernels = Literal["torch", "triton"]

VARIABLE = "LEYLINE_KERNELS"
_OLDEST = (3, 6)

_log = logging.getLogger("leyline.serving.kernels")


class Choice(NamedTuple):
    """Which kernels, and why."""

    kernels: Kernels
    reason: str


def choose(device: torch.device | str) -> Choice:
    """The kernels for tensors on `device`, or on one of that type ("cpu", "cuda").

    A GPU that gets torch's although nobody asked for them is logged, once.

    Raises:
        EngineError: the variable has an unknown value, or asks for Triton where it cannot run.
    """
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    kind = device if isinstance(device, str) else device.type
    return _choose(kind, os.environ.get(VARIABLE, "auto"), interpreted)


def make_backend(
    store: KVStore, pool: SlotPool, rope: RopeSpec | None, *, max_segments: int, copy_bytes: int
) -> AttentionBackend[Any]:
    """The backend for the device that `store` is on; the last two are for torch's working copies.

    Raises:
        EngineError: as `choose`.
    """
    if choose(store.device).kernels == "triton":
        from leyline_agent.serving.kernels.triton_backend import TritonBackend

        return TritonBackend(store, rope)
    from leyline_agent.serving.kernels.torch_backend import TorchBackend

    return TorchBackend(store, pool, rope, max_segments=max_segments, copy_bytes=copy_bytes)


@functools.cache
def _choose(device: str, wanted: str, interpreted: bool) -> Choice:
    if wanted not in ("auto", "torch", "triton"):
        raise EngineError(f"{VARIABLE}={wanted} is not known; set auto, torch or triton")
    if wanted == "torch":
        return Choice("torch", f"{VARIABLE}=torch")
    if wanted == "auto" and device != "cuda":
        return Choice("torch", f"the device is {device}")
    problem = _problem(device, interpreted)
    if problem is None:
        how = "Triton's interpreter" if interpreted else "Triton sees the GPU"
        return Choice("triton", how)
    if wanted == "triton":
        raise EngineError(f"{VARIABLE}=triton, but {problem}")
    _log.warning("torch's kernels serve the GPU, slowly: %s", problem)
    return Choice("torch", problem)


def _problem(device: str, interpreted: bool) -> str | None:
    """Why Triton's kernels cannot run on `device`; None where they can."""
    try:
        import triton
    except ImportError as error:
        return f"triton cannot be imported ({error}); pip install 'triton>=3.6'"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < _OLDEST:
        return f"triton is {triton.__version__}; pip install 'triton>=3.6'"
    if interpreted:
        return None
    if device != "cuda":
        return (
            f"on a {device} its kernels run only under its interpreter; set TRITON_INTERPRET=1 "
            "before Python starts (slow: for tests)"
        )
    try:
        # Builds a small library with the C compiler, as the first kernel would.
        triton.runtime.driver.active.get_current_target()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return f"triton cannot use the GPU ({error}); it needs a driver and a C compiler"
    return None
