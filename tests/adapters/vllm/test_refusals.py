"""Servers that splice nothing, and releases of vLLM that are not known."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from leyline_adapters.vllm import versions
from leyline_adapters.vllm.refusals import MODEL_TYPES, of_server
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Reason


class FullAttentionSpec(SimpleNamespace):
    """Stands for vLLM's."""


class MLAAttentionSpec(SimpleNamespace):
    """Likewise."""


class MambaSpec(SimpleNamespace):
    """Likewise."""


def server(**changed: Any) -> tuple[Any, Any]:
    """A server that splices, with something changed."""
    known = {
        "specs": [FullAttentionSpec(sliding_window=None, attention_chunk_size=None)],
        "cache_dtype": "auto", "model_type": "llama", "layer_types": None, "extra": {},
        "speculative": None, "caching": True, "decode_context_parallel_size": 1,
    } | changed  # fmt: skip
    text = SimpleNamespace(model_type=known["model_type"], layer_types=known["layer_types"])
    config = SimpleNamespace(
        cache_config=SimpleNamespace(
            cache_dtype=known["cache_dtype"], enable_prefix_caching=known["caching"]
        ),
        model_config=SimpleNamespace(hf_text_config=text),
        kv_transfer_config=SimpleNamespace(kv_connector_extra_config=known["extra"]),
        parallel_config=SimpleNamespace(
            decode_context_parallel_size=known["decode_context_parallel_size"],
            prefill_context_parallel_size=1,
        ),
        speculative_config=known["speculative"],
    )
    groups = [SimpleNamespace(kv_cache_spec=spec) for spec in known["specs"]]
    return config, SimpleNamespace(kv_cache_groups=groups)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"specs": [MLAAttentionSpec()], "model_type": "deepseek_v2"},
        {"model_type": "newcomer", "extra": {"model_types": ["newcomer"]}},
        {"layer_types": ["full_attention"] * 3},
        {"cache_dtype": "bfloat16"},
    ],
)
def test_servers_that_splice(changed: dict[str, Any]) -> None:
    assert of_server(*server(**changed)) is None


@pytest.mark.parametrize(
    ("changed", "reason", "said"),
    [
        ({"specs": [FullAttentionSpec(), MambaSpec()]}, Reason.LAYER_KIND, "MambaSpec"),
        ({"specs": [MambaSpec()]}, Reason.LAYER_KIND, "MambaSpec"),
        ({"specs": [FullAttentionSpec(sliding_window=512)]}, Reason.LAYER_KIND, "sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, Reason.LAYER_KIND, "sliding"),
        ({"model_type": "gemma3_text"}, Reason.LAYER_KIND, "gemma3_text"),
        ({"cache_dtype": "fp8_e4m3"}, Reason.ENGINE_CANNOT_SPLICE, "fp8_e4m3"),
        ({"caching": False}, Reason.ENGINE_CANNOT_SPLICE, "prefix caching is off"),
        ({"speculative": object()}, Reason.ENGINE_CANNOT_SPLICE, "speculative"),
        (
            {"decode_context_parallel_size": 2},
            Reason.ENGINE_CANNOT_SPLICE,
            "decode_context_parallel_size",
        ),
    ],
)
def test_servers_that_do_not(changed: dict[str, Any], reason: Reason, said: str) -> None:
    refusal = of_server(*server(**changed))
    assert refusal is not None
    assert refusal.reason is reason
    assert said in refusal.detail


def test_models_with_layers_without_positions_are_not_on_the_list() -> None:
    assert not {"smollm3", "cohere2", "exaone4", "llama4", "gemma2", "gpt_oss"} & MODEL_TYPES


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1+cpu"])
def test_known_releases(version: str) -> None:
    versions.check(version)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.0", "dev", "0.3.2"])
def test_unknown_releases_are_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(AdapterError, match=r"supported: 0\.32\.x .*without --kv-transfer-config"):
        versions.check(version)


def test_an_unknown_release_is_refused_before_what_it_lacks_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = ModuleType("vllm")
    other.__version__ = "0.99.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", other)
    with pytest.raises(AdapterError, match=r"does not know vLLM 0\.99\.0; supported: 0\.32"):
        importlib.import_module("leyline_adapters.vllm.connector")
