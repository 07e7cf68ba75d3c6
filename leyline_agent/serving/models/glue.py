"""The seam to transformers: an attention function that hands every layer to the engine.

Registered as "leyline" in transformers' attention-interface registry. The model computes queries,
keys and values (rope applied at the positions it is given); the engine stores keys and values and
attends. A forward pass names its `Attend` object by keyword.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from leyline_agent.errors import UnsupportedModel

__all__ = ["ATTENTION", "Attend", "register"]

ATTENTION = "leyline"


class Attend(Protocol):
    """What one forward pass does at every attention layer."""

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, options: Any
    ) -> Tensor:
        """Attention output [m, heads, d_v].

        Args:
            layer: the layer's index.
            query: [heads, m, d], rotated.
            key: [kv_heads, m, d], rotated: the queries' own.
            value: [kv_heads, m, d_v].
            scale: factor on the scores.
            options: whatever else the model passed (sliding_window, softcap, ...).
        """
        ...


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    leyline: Attend | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    if leyline is None:
        raise UnsupportedModel(
            f"{type(module).__name__} does not pass keyword arguments on to its attention; this "
            "model needs another engine"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = module.layer_idx
    out = leyline(layer, query[0], key[0], value[0], scale, options)
    return out.contiguous()[None], None  # contiguous, as some models take it for granted


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The engine masks by position; the model need not build a mask."""


def register() -> None:
    """Register the attention function and its mask; harmless to repeat."""
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
