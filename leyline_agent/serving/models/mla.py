"""Multi-head latent attention (DeepSeek-V2 and its heirs): the cache holds latents, not heads.

A layer's keys and values are linear in one latent c a token, shared by all heads; a small part
k_pe of the key, shared too, carries the position. The projections out of c can be absorbed into
the query and the output (DeepSeek-V2, arXiv 2405.04434, section 2.1):

    q . k  =  q_pe . k_pe + q_nope . (W_k c)  =  [q_pe, W_k' q_nope] . [k_pe, c]
    out    =  sum_i p_i (W_v c_i)             =  W_v sum_i p_i c_i

So the engine sees one KV head of keys [k_pe, c], rotary part first, whose values are the keys'
last entries: the same memory. The model's own code goes on making queries, latents and
rotations; only the hook that would expand latents into heads is replaced.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from leyline_agent.serving.models.glue import ATTENTION, Attend

__all__ = ["cache_latents"]

_SIZES = ("num_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")


def cache_latents(model: nn.Module) -> int:
    """Make a transformers model hand the engine latents wherever its attention has them.

    With another attention implementation than the engine's it computes what it did before.

    Returns:
        How many attention layers have latents.
    """
    found = [module for module in model.modules() if _has_latents(module)]
    for kind in {type(module) for module in found}:
        latent_kind = type(f"Latent{kind.__name__}", (_LatentAttention, kind), {})
        for module in found:
            if type(module) is kind:
                module.__class__ = latent_kind
    return len(found)


def _has_latents(module: nn.Module) -> bool:
    """Whether it is MLA as transformers writes it, with a plain projection out of the latent."""
    layer: Any = module
    if not hasattr(layer, "expand_kv") or not all(hasattr(layer, name) for name in _SIZES):
        return False
    up = getattr(layer, "kv_b_proj", None)
    if type(up) is not nn.Linear or up.bias is not None:
        return False
    width = layer.num_heads * (layer.qk_nope_head_dim + layer.v_head_dim)
    return up.weight.shape == (width, layer.kv_lora_rank)


class _LatentAttention(nn.Module):
    """Goes in front of a model's own MLA class."""

    config: Any
    qk_rope_head_dim: int

    def forward(self, *args: Any, leyline: Attend | None = None, **options: Any) -> Any:
        if leyline is not None:
            options["leyline"] = _Absorbed(self, leyline)
        return super().forward(*args, **options)

    def expand_kv(self, latent: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [1, 1, m, rope + latent] and, in the same memory, values [1, 1, m, latent]."""
        if self.config._attn_implementation != ATTENTION:
            expanded: tuple[Tensor, Tensor] = super().expand_kv(latent, key_pe)  # type: ignore[misc]
            return expanded
        key = torch.cat((key_pe, latent), -1)
        return key, key[..., key_pe.shape[-1] :]


class _Absorbed:
    """Attention over latents for one layer's expanded queries (an `Attend`)."""

    def __init__(self, layer: Any, attend: Attend) -> None:
        self.attend = attend
        self.nope: int = layer.qk_nope_head_dim
        weight: Tensor = layer.kv_b_proj.weight
        heads = weight.view(layer.num_heads, self.nope + layer.v_head_dim, layer.kv_lora_rank)
        self.up_key, self.up_value = heads[:, : self.nope], heads[:, self.nope :]

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, options: Any
    ) -> Tensor:
        """Attention output [m, heads, v_head_dim] of `query` [heads, m, nope + rope]."""
        absorbed = torch.bmm(query[..., : self.nope], self.up_key)
        latent_query = torch.cat((query[..., self.nope :], absorbed), -1)
        out = self.attend(layer, latent_query, key, value, scale, options)
        return torch.bmm(out.transpose(0, 1), self.up_value.transpose(1, 2)).transpose(0, 1)
