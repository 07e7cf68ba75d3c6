"""What is refused: SGLang's own objects, stood in for by what is read of them.

The real ones are seen by `scripts/test-sglang`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from leyline_adapters.sglang.support import Movable, movable
from leyline_adapters.sglang.turns import Refusal
from leyline_adapters.sglang.versions import check
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Reason


class RotaryEmbedding(torch.nn.Module):
    base, rotary_dim, position_start = 100.0, 8, 0

    def __init__(self, scale: float = 1.0, is_neox_style: bool = True) -> None:
        super().__init__()
        self.is_neox_style = is_neox_style
        angles = torch.arange(32.0)[:, None] * self._compute_inv_freq(self.base)
        self.cos_sin_cache = torch.cat((angles.cos(), angles.sin()), -1) * scale

    def _compute_inv_freq(self, base: float) -> torch.Tensor:
        return 1.0 / base ** (torch.arange(0, self.rotary_dim, 2).float() / self.rotary_dim)


class YaRNScalingRotaryEmbedding(RotaryEmbedding):
    pass


class MHATokenToKVPool:
    kv_cache_layout = "nhd"
    dtype = store_dtype = torch.bfloat16
    start_layer, layer_num = 0, 2

    def get_key_buffer(self, number: int) -> torch.Tensor:
        return torch.full((4, 1, 8), float(number))

    def get_value_buffer(self, number: int) -> torch.Tensor:
        return self.get_key_buffer(number) + 10


class MLATokenToKVPool(MHATokenToKVPool):
    pass


def context(**changes: Any) -> SimpleNamespace:
    """What SGLang passes for a plain Llama; `changes` go wherever the name is."""
    pool = MHATokenToKVPool()
    for name in ("kv_cache_layout", "dtype", "store_dtype"):
        if name in changes:
            setattr(pool, name, changes.pop(name))
    pool = changes.pop("pool", pool)
    model = torch.nn.ModuleList(changes.pop("ropes", [RotaryEmbedding(), RotaryEmbedding()]))
    params = {"disable": False, "page_size": 1, "is_eagle": False, "enable_kv_cache_events": False}
    params |= {"pp_size": 1, "attn_cp_size": 1, "sliding_window_size": None}
    args = {"speculative_algorithm": None, "disaggregation_mode": "null", "enable_lora": None}
    config: dict[str, Any] = {"architectures": ["LlamaForCausalLM"]}
    own = {"disable_radix_cache": False, "enable_hierarchical_cache": False}
    own |= {"is_hybrid_swa": False, "is_hybrid_ssm": False}
    for part in (params, args, own):
        part.update({name: changes.pop(name) for name in list(changes) if name in part})
    config.update(changes)
    return SimpleNamespace(
        params=SimpleNamespace(
            **params, token_to_kv_pool_allocator=SimpleNamespace(get_kvcache=lambda: pool)
        ),
        server_args=SimpleNamespace(**args),
        model_config=SimpleNamespace(hf_config=SimpleNamespace(**config)),
        tp_worker=SimpleNamespace(model_runner=SimpleNamespace(model=model)),
        **own,
    )


def test_a_plain_llama_is_movable() -> None:
    found = movable(context())

    assert isinstance(found, Movable)
    assert [float(keys[0, 0, 0]) for keys, _ in found.layers] == [0.0, 1.0]
    assert [float(values[0, 0, 0]) for _, values in found.layers] == [10.0, 11.0]
    assert (found.rope.pairing, found.rope.rotary_dim) == ("half", 8)


def test_the_pairing_is_the_models() -> None:
    found = movable(context(ropes=[RotaryEmbedding(is_neox_style=False)]))

    assert isinstance(found, Movable)
    assert found.rope.pairing == "interleaved"


@pytest.mark.parametrize(
    ("changes", "reason", "said"),
    [
        ({"page_size": 16}, Reason.ENGINE_CANNOT_SPLICE, "--page-size 1"),
        ({"disable_radix_cache": True}, Reason.ENGINE_CANNOT_SPLICE, "disabled"),
        ({"speculative_algorithm": "EAGLE"}, Reason.ENGINE_CANNOT_SPLICE, "speculative"),
        ({"enable_hierarchical_cache": True}, Reason.ENGINE_CANNOT_SPLICE, "hierarchical"),
        ({"enable_kv_cache_events": True}, Reason.ENGINE_CANNOT_SPLICE, "events"),
        ({"disaggregation_mode": "prefill"}, Reason.ENGINE_CANNOT_SPLICE, "different servers"),
        ({"pp_size": 2}, Reason.ENGINE_CANNOT_SPLICE, "pipeline"),
        ({"attn_cp_size": 2}, Reason.ENGINE_CANNOT_SPLICE, "context parallelism"),
        ({"enable_lora": True}, Reason.ENGINE_CANNOT_SPLICE, "LoRA"),
        ({"is_hybrid_swa": True}, Reason.LAYER_KIND, "sliding window"),
        ({"sliding_window_size": 512}, Reason.LAYER_KIND, "sliding window"),
        ({"sliding_window": 4096}, Reason.LAYER_KIND, "sliding window"),
        ({"is_hybrid_ssm": True}, Reason.LAYER_KIND, "recurrent"),
        ({"architectures": ["DeepseekV3ForCausalLM"]}, Reason.LAYER_KIND, "DeepseekV3"),
        ({"architectures": None}, Reason.LAYER_KIND, "unknown"),
        ({"pool": MLATokenToKVPool()}, Reason.LAYER_KIND, "MLATokenToKVPool"),
        ({"kv_cache_layout": "hnd"}, Reason.ENGINE_CANNOT_SPLICE, "hnd"),
        ({"store_dtype": torch.uint8}, Reason.ENGINE_CANNOT_SPLICE, "quantised"),
        ({"ropes": []}, Reason.ROPE_KIND, "0 kinds"),
        (
            {"ropes": [RotaryEmbedding(), RotaryEmbedding(is_neox_style=False)]},
            Reason.ROPE_KIND,
            "2 kinds",
        ),
        ({"ropes": [YaRNScalingRotaryEmbedding()]}, Reason.ROPE_KIND, "YaRN"),
        ({"ropes": [RotaryEmbedding(scale=1.1)]}, Reason.ROPE_KIND, "frequencies"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else str(value),
)
def test_what_cannot_be_moved_says_why(changes: dict[str, Any], reason: Reason, said: str) -> None:
    found = movable(context(**changes))

    assert isinstance(found, Refusal)
    assert found.reason is reason
    assert said in found.detail


def test_a_window_that_the_configuration_turns_off_is_none() -> None:
    found = movable(context(sliding_window=32768, use_sliding_window=False))

    assert isinstance(found, Movable)


def test_other_releases_are_refused() -> None:
    check("0.5.23")
    with pytest.raises(AdapterError, match=r"fits SGLang 0\.5\.23, and this is 0\.6\.0"):
        check("0.6.0")
