"""When nothing is spliced: servers and requests whose KV cannot be moved, or is not ours to move.

A refusal is an ordinary prefill with a reason on the receipt; it is no error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from leyline_agent.receipt import Reason

__all__ = ["MODEL_TYPES", "Refusal", "of_request", "of_server"]

MODEL_TYPES = frozenset({
    "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "phi3", "olmo2",
    "granite", "starcoder2", "cohere", "glm", "phi", "gpt_neox", "ernie4_5",
    "deepseek_v2", "deepseek_v3",
})  # fmt: skip
"""Models that rotate their keys last, alike in every layer, so that a cached key can be moved.

The bundled engine measures this by running the model; a connector cannot, so it is a list. A model
that has been checked is added by `kv_connector_extra_config: {"model_types": ["name"]}`.
"""


class Refusal(NamedTuple):
    """Why not: a code, and words."""

    reason: Reason
    detail: str


def of_server(config: Any, kv_cache_config: Any) -> Refusal | None:
    """Why a server splices nothing; None when it does.

    Args:
        config: its `VllmConfig`.
        kv_cache_config: its `KVCacheConfig`.
    """
    return (
        _cannot_continue(config)
        or _cache_kinds(kv_cache_config)
        or _quantised(config)
        or _model(config)
        or _parallel(config)
    )


def _cannot_continue(config: Any) -> Refusal | None:
    """Prefix caching is off, by vLLM itself where attention cannot start behind KV."""
    if config.cache_config.enable_prefix_caching:
        return None
    return Refusal(
        Reason.ENGINE_CANNOT_SPLICE,
        "prefix caching is off: by an option, or because this model's attention needs it off",
    )


def _cache_kinds(kv_cache_config: Any) -> Refusal | None:
    groups = kv_cache_config.kv_cache_groups
    kinds = sorted({type(group.kv_cache_spec).__name__ for group in groups})
    if len(groups) != 1 or kinds[0] not in {"FullAttentionSpec", "MLAAttentionSpec"}:
        return Refusal(
            Reason.LAYER_KIND, f"layers whose KV is not all kept in one table: {', '.join(kinds)}"
        )
    spec = groups[0].kv_cache_spec
    for name in ("sliding_window", "attention_chunk_size"):
        if getattr(spec, name, None) is not None:
            return Refusal(Reason.LAYER_KIND, f"layers with {name}")
    return None


def _quantised(config: Any) -> Refusal | None:
    dtype = str(config.cache_config.cache_dtype)
    if dtype in {"auto", "bfloat16", "float16"}:
        return None
    return Refusal(Reason.ENGINE_CANNOT_SPLICE, f"the KV cache is quantised ({dtype})")


def _model(config: Any) -> Refusal | None:
    text = config.model_config.hf_text_config
    extra = config.kv_transfer_config.kv_connector_extra_config.get("model_types", ())
    kind = str(text.model_type)
    if kind not in MODEL_TYPES and kind not in extra:
        return Refusal(
            Reason.LAYER_KIND, f"model type {kind!r} is not among those whose keys move (docs)"
        )
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        return Refusal(Reason.LAYER_KIND, f"layers of kind {', '.join(sorted(kinds))}")
    return None


def _parallel(config: Any) -> Refusal | None:
    parallel = config.parallel_config
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            return Refusal(Reason.ENGINE_CANNOT_SPLICE, f"{name} is above 1")
    if config.speculative_config is not None:
        return Refusal(Reason.ENGINE_CANNOT_SPLICE, "speculative decoding keeps KV of its own")
    return None


def of_request(request: Any) -> Refusal | None:
    """Why a request is neither spliced nor kept as a source; None when it is."""
    told = ""
    if request.lora_request is not None:
        told = "requests with LoRA"
    elif request.mm_features:
        told = "requests with images or audio"
    elif request.prompt_token_ids is None or request.prompt_embeds is not None:
        told = "requests with prompt embeddings"
    elif request.pooling_params is not None:
        told = "pooling requests"
    elif request.resumable:
        told = "requests whose input is streamed"
    return Refusal(Reason.ENGINE_CANNOT_SPLICE, f"{told} are not spliced") if told else None
