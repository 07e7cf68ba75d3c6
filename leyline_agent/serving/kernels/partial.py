"""Partial attention: attention over some keys, with the log-sum-exp needed to merge it.

Softmax over a union of key sets is the log-sum-exp-weighted mean of the softmaxes over the sets
(FlashAttention, arXiv 2205.14135), so each run of cached keys can be attended to on its own.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["merge_into", "partial_attention", "partial_attention_reference"]


def partial_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of `query` [b, h, m, d] over `key` [b, h, n, d] and `value` [b, h, n, d_v].

    Args:
        query: same dtype as the keys.
        key: stored keys; the last dimension must be contiguous, others may be expanded.
        value: stored values, likewise; for latents (MLA) the keys' last entries, in place.
        scale: factor on the scores.
        causal: query i sees keys 0..i; needs m == n.
        mask: additive [m, n], -inf where a key is hidden; every row must see a key.

    Returns:
        The output [b, h, m, d_v] in the query's dtype and its float32 log-sum-exp [b, h, m].
    """
    size = value.shape[-1]
    if query.device.type != "cpu" or size > key.shape[-1]:
        return partial_attention_reference(query, key, value, scale=scale, causal=causal, mask=mask)
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query,
        key,
        _as_wide(value, key),
        0.0,
        causal,
        attn_mask=None if mask is None else mask.expand(*query.shape[:3], -1),
        scale=scale,
    )
    return out[..., out.shape[-1] - size :], lse


def _as_wide(value: Tensor, key: Tensor) -> Tensor:
    """The values as wide as the keys, their own entries last: torch's operator wants one width."""
    more = key.shape[-1] - value.shape[-1]
    if not more:
        return value
    in_place = value.data_ptr() == key[..., more:].data_ptr() and value.stride() == key.stride()
    return key if in_place else functional.pad(value, (more, 0))


def partial_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same in plain float32 arithmetic: the reference, and the path for other devices."""
    scores = (query.float() @ key.float().transpose(-1, -2)) * scale
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(hidden, float("-inf"))
    if mask is not None:
        scores = scores + mask.float()
    lse = scores.logsumexp(-1)
    out = (scores - lse[..., None]).exp() @ value.float()
    return out.to(query.dtype), lse


def merge_into(out: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
    """Merge a partial result into a running one, in place.

    Args:
        out: running float32 output [..., d].
        lse: running float32 log-sum-exp [...]; -inf where nothing has been attended to yet.
        part: the partial output, any dtype.
        part_lse: its log-sum-exp; finite.
    """
    total = torch.logaddexp(lse, part_lse)
    out.mul_((lse - total).exp_()[..., None])
    out.addcmul_(part.to(out.dtype), (part_lse - total).exp_()[..., None])
    lse.copy_(total)
