"""Self-check: through the engine's seam a model must say what it says by itself.

A model may keep state, hide keys or read its mask in ways no configuration tells. So a few tokens
are run twice: by the model's own attention at once, and through the seam in two parts.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from leyline_agent.errors import UnsupportedModel
from leyline_agent.serving.kernels.partial import partial_attention_reference
from leyline_agent.serving.models.glue import ATTENTION
from leyline_agent.serving.models.probe import forward, text_config

__all__ = ["check_seam"]

_TOKENS, _FIRST = 24, 12
# Of the largest logit. Routing to other experts makes single positions differ by more.
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}


class _Plain:
    """Causal attention over everything the layer has been given so far."""

    def __init__(self) -> None:
        self.keys: dict[int, list[Tensor]] = defaultdict(list)
        self.values: dict[int, list[Tensor]] = defaultdict(list)

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, options: Any
    ) -> Tensor:
        self.keys[layer].append(key)
        self.values[layer].append(value)
        groups = query.shape[0] // key.shape[0]
        keys, values = (
            torch.cat(parts[layer], 1).repeat_interleave(groups, 0)
            for parts in (self.keys, self.values)
        )
        where = torch.arange(keys.shape[1], device=keys.device)
        queries = where[-query.shape[1] :, None]
        window = options.get("sliding_window") or len(where)
        hidden = (where > queries) | (where <= queries - window)
        mask = torch.zeros_like(hidden, dtype=torch.float32).masked_fill_(hidden, float("-inf"))
        out, _ = partial_attention_reference(
            query[None], keys[None], values[None], scale=scale, mask=mask
        )
        return out[0].transpose(0, 1)


@torch.inference_mode()
def check_seam(model: nn.Module) -> None:
    """Compare a causal LM with itself.

    Raises:
        UnsupportedModel: its own attention is not what the engine computes.
    """
    kind = text_config(model).model_type
    ids = [1 + i % (text_config(model).vocab_size - 1) for i in range(_TOKENS)]
    owner: Any = model
    owner.set_attn_implementation("eager")
    try:
        expected = forward(model, ids)[_FIRST:]
    finally:
        owner.set_attn_implementation(ATTENTION)
    attend = _Plain()
    forward(model, ids[:_FIRST], leyline=attend)
    found = forward(model, ids[_FIRST:], start=_FIRST, leyline=attend)
    errors = (found - expected).abs().amax(-1) / expected.abs().amax(-1).clamp_min(1e-6)
    dtype = next(model.parameters()).dtype
    if not errors.median() <= _TOLERANCE.get(dtype, 1e-1):
        raise UnsupportedModel(
            f"{kind}: through the engine's attention it computes something else "
            f"(logits differ by {float(errors.median()):.1%}); serve this model with another engine"
        )
