"""How the served model rotates its keys, taken from the rotary modules that vLLM made for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from leyline_adapters.vllm.refusals import Refusal
from leyline_agent.receipt import Reason
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["rotation"]

# vLLM's classes whose frequencies do not depend on the length, and how each computes them. The
# kinds are those of `leyline_agent.serving.models.probe.FIXED_ROPE_KINDS`.
_FREQUENCIES: dict[str, Callable[[Any], Tensor]] = {
    "RotaryEmbedding": lambda one: one._compute_inv_freq(one.base),
    "Llama3RotaryEmbedding": lambda one: one._compute_inv_freq(one.base),
    "LinearScalingRotaryEmbedding": lambda one: (
        one._compute_inv_freq(one.base) / one.scaling_factors[0]
    ),
    "YaRNScalingRotaryEmbedding": lambda one: one._compute_inv_freq(one.scaling_factor),
    "DeepseekScalingRotaryEmbedding": lambda one: one._compute_inv_freq(one.scaling_factor),
}
_POSITIONS = (1, 37, 1_000)
_TOLERANCE = 0.02  # The modules keep their tables in the model's type, at worst bfloat16.


def rotation(modules: Iterable[Any], key_dim: int) -> RopeSpec | Refusal:
    """The one rotation of a model's keys, or why there is none that can be used.

    Args:
        modules: the rotary modules of the model.
        key_dim: dimensions of a cached key, or of its rotary part.
    """
    specs = [_spec(module) for module in modules]
    if not specs:
        return Refusal(Reason.ROPE_KIND, "the model has no rotary positions")
    first = specs[0]
    for spec in specs:
        if isinstance(spec, Refusal):
            return spec
        if isinstance(first, RopeSpec) and not _same(spec, first):
            return Refusal(Reason.ROPE_KIND, f"{len(specs)} different rotations")
    if isinstance(first, RopeSpec) and first.rotary_dim > key_dim:
        return Refusal(
            Reason.ROPE_KIND, f"{first.rotary_dim} dimensions are rotated; a key has {key_dim}"
        )
    return first


def _same(left: RopeSpec, right: RopeSpec) -> bool:
    return left.pairing == right.pairing and torch.equal(left.inv_freq, right.inv_freq)


def _spec(module: Any) -> RopeSpec | Refusal:
    kind = type(module).__name__
    if kind not in _FREQUENCIES or len(getattr(module, "scaling_factors", (1,))) != 1:
        return Refusal(Reason.ROPE_KIND, f"rotary module {kind} is not on the allow-list")
    frequencies = _FREQUENCIES[kind](module).cpu().double()
    spec = RopeSpec(frequencies, "half" if module.is_neox_style else "interleaved")
    if not _agrees(module.cos_sin_cache, frequencies):
        return Refusal(Reason.ROPE_KIND, f"the table of {kind} is not the one its code computes")
    return spec


def _agrees(table: Tensor, frequencies: Tensor) -> bool:
    """Whether a module's table [positions, rotary_dim] has these frequencies, up to a factor."""
    at = torch.tensor([p for p in _POSITIONS if p < len(table)])
    rows = table[at.to(table.device)].double().cpu()
    cos, sin = rows.chunk(2, -1)
    factor = (cos**2 + sin**2).sqrt()
    angles = at.double()[:, None] * frequencies
    off = torch.maximum((cos - factor * angles.cos()).abs(), (sin - factor * angles.sin()).abs())
    return bool((off <= _TOLERANCE * factor).all() and (factor > 0).all())
