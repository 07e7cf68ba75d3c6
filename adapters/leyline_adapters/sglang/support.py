"""Whether cached keys can be moved in this server, and how they are rotated.

An allow-list, as in the bundled engine: what is not known to be right is refused with a reason,
and served as SGLang serves it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from leyline_adapters.sglang.moving import same_rotation
from leyline_adapters.sglang.turns import Refusal
from leyline_agent.receipt import Reason
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["ARCHITECTURES", "Movable", "movable"]

# Decoders whose every layer rotates its whole key by one table, and caches nothing but K and V.
ARCHITECTURES = frozenset(
    {
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "Qwen2MoeForCausalLM",
        "Qwen3MoeForCausalLM",
    }
)
# Classes that only rotate: no factor that depends on the length or the position.
ROTATIONS = frozenset({"RotaryEmbedding", "Llama3RotaryEmbedding"})
DTYPES = frozenset({"torch.bfloat16", "torch.float16", "torch.float32"})


class Movable(NamedTuple):
    """Where keys and values lie, and how keys are rotated."""

    layers: list[tuple[Tensor, Tensor]]
    rope: RopeSpec


def movable(context: Any) -> Movable | Refusal:
    """What is needed to move KV in this server, or why it cannot be moved.

    Args:
        context: SGLang's `TreeCacheBuildContext`.
    """
    reason = _server(context) or _model(context)
    if reason is not None:
        return reason
    pool = context.params.token_to_kv_pool_allocator.get_kvcache()
    if (refused := _pool(pool)) is not None:
        return refused
    rope = _rope(context.tp_worker.model_runner.model)
    if isinstance(rope, Refusal):
        return rope
    first = pool.start_layer
    numbers = range(first, first + pool.layer_num)
    return Movable([(pool.get_key_buffer(n), pool.get_value_buffer(n)) for n in numbers], rope)


def _server(context: Any) -> Refusal | None:
    params, args = context.params, context.server_args
    standing_in_the_way = {
        "the radix cache is disabled": params.disable or context.disable_radix_cache,
        f"pages are of {params.page_size} tokens, and only --page-size 1 can be spliced": (
            params.page_size != 1
        ),
        "keys are of token pairs (EAGLE)": params.is_eagle,
        "speculative decoding keeps a second cache": args.speculative_algorithm is not None,
        "the hierarchical cache stores what is in the tree": context.enable_hierarchical_cache,
        "cache events would publish spliced blocks as exact": params.enable_kv_cache_events,
        "prefill and decode are on different servers": args.disaggregation_mode != "null",
        "pipeline parallelism": params.pp_size > 1,
        "context parallelism": params.attn_cp_size > 1,
        "LoRA adapters change keys and values": bool(args.enable_lora),
    }
    for what, stands in standing_in_the_way.items():
        if stands:
            return Refusal(Reason.ENGINE_CANNOT_SPLICE, f"nothing is spliced here: {what}")
    return None


def _model(context: Any) -> Refusal | None:
    if context.is_hybrid_swa or context.params.sliding_window_size is not None:
        return Refusal(Reason.LAYER_KIND, "layers with a sliding window lose what a splice needs")
    if context.is_hybrid_ssm:
        return Refusal(Reason.LAYER_KIND, "recurrent layers have one state, not a key a token")
    config = context.model_config.hf_config
    names = getattr(config, "architectures", None) or ["unknown"]
    if names[0] not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        return Refusal(Reason.LAYER_KIND, f"{names[0]} is not among those known to move: {known}")
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return Refusal(Reason.LAYER_KIND, "the model's configuration asks for a sliding window")
    return None


def _pool(pool: Any) -> Refusal | None:
    kind = type(pool).__name__
    if kind != "MHATokenToKVPool":
        return Refusal(Reason.LAYER_KIND, f"the KV pool is a {kind}, not plain keys and values")
    if pool.kv_cache_layout != "nhd":
        what = f"the KV pool's layout is {pool.kv_cache_layout}, not nhd"
        return Refusal(Reason.ENGINE_CANNOT_SPLICE, what)
    if pool.dtype != pool.store_dtype or str(pool.dtype) not in DTYPES:
        what = f"the cache is quantised ({pool.dtype}); a rotation would round it again"
        return Refusal(Reason.ENGINE_CANNOT_SPLICE, what)
    return None


def _rope(model: Any) -> RopeSpec | Refusal:
    found = [m for m in model.modules() if hasattr(m, "cos_sin_cache")]
    kinds = {
        (type(m).__name__, str(m.base), m.rotary_dim, m.is_neox_style, m.position_start)
        for m in found
    }
    if len(kinds) != 1:
        what = f"{len(kinds)} kinds of rotation in one model; one is needed"
        return Refusal(Reason.ROPE_KIND, what)
    rotary = found[0]
    name = type(rotary).__name__
    if name not in ROTATIONS or rotary.position_start != 0:
        return Refusal(Reason.ROPE_KIND, f"{name} is not a rotation that deltas undo")
    frequencies = rotary._compute_inv_freq(rotary.base).double().cpu()
    rope = RopeSpec(frequencies, "half" if rotary.is_neox_style else "interleaved")
    if not same_rotation(rotary.cos_sin_cache, rope):
        return Refusal(Reason.ROPE_KIND, f"the table of {name} is not that of its frequencies")
    return rope
