"""Small random models on real vLLM: servers that splice nothing, and one that keeps latents."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import amortized_by
from vllm_server import ROOT, TRANSFER

from leyline_agent.directive import Directive, Mode
from leyline_agent.serving.models.rope import RopeSpec

HERE = Path(__file__).parent
SMALL = {
    "vocab_size": 256, "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
MLA = SMALL | {
    "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64, "qk_nope_head_dim": 32,
    "v_head_dim": 32, "num_key_value_heads": 4, "head_dim": 64, "first_k_dense_replace": 1,
}  # fmt: skip
A, X, B, Q = list(range(3, 73)), list(range(80, 120)), list(range(121, 221)), [9, 11, 13, 17, 19]


def model(folder: Path, kind: str, **config: Any) -> str:
    """A model of random weights, larger than usual so that attention is far from uniform."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(5)
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config))
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(6)
    made.to(torch.bfloat16).save_pretrained(folder)
    return str(folder)


def adapter(folder: Path, base: str) -> str:
    """A LoRA adapter for the small model."""
    from safetensors.torch import save_file

    folder.mkdir()
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {
            f"{layer}.lora_A.weight": torch.ones(8, 128),
            f"{layer}.lora_B.weight": torch.ones(128, 8),
        },
        folder / "adapter_model.safetensors",
    )
    about = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none",
        "base_model_name_or_path": base,
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return str(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def found(models: Path) -> dict[str, Any]:
    """What each of the servers told."""
    llama = model(models / "llama", "llama", **SMALL)
    windows = model(models / "mistral", "mistral", **SMALL, sliding_window=64)
    hybrid = model(
        models / "gemma", "gemma3_text", **SMALL | {"num_hidden_layers": 2}, sliding_window=64,
        layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=32,
    )  # fmt: skip
    latents = model(models / "latents", "deepseek_v2", **MLA)
    leyline = TRANSFER | {"kv_connector": "LeylineConnector"}
    leyline["kv_connector_module_path"] = "leyline_adapters.vllm.connector"
    other = {
        "kv_connector": "ExampleConnector", "kv_role": "kv_both",
        "kv_connector_extra_config": {"shared_storage_path": str(models / "stored")},
    }  # fmt: skip
    beside = {
        "kv_connector": "MultiConnector", "kv_role": "kv_both",
        "kv_connector_extra_config": {"connectors": [leyline, other]},
    }  # fmt: skip
    plain = {"connector": leyline, "options": {"dtype": "bfloat16"}}
    cases = [
        {"name": "llama", "model": llama, **plain},
        {"name": "windows", "model": windows, **plain},
        {"name": "hybrid", "model": hybrid, **plain},
        {"name": "latents", "model": latents, **plain},
        {"name": "quantised", "model": llama, "connector": leyline,
         "options": {"dtype": "bfloat16", "kv_cache_dtype": "fp8"}},
        {"name": "beside", "model": llama, "connector": beside, "options": {
            "dtype": "bfloat16", "disable_hybrid_kv_cache_manager": True}},
        {"name": "lora", "model": llama, "connector": leyline,
         "options": {"dtype": "bfloat16", "enable_lora": True},
         "lora": adapter(models / "lora", llama)},
        {"name": "ranks", "model": llama, "connector": TRANSFER, "fails": "1",
         "options": {"dtype": "bfloat16", "tensor_parallel_size": 2},
         "environment": {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}},
    ]  # fmt: skip
    (models / "cases.json").write_text(json.dumps(cases))
    packages = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), str(HERE)])
    script = [str(HERE / "small_models.py"), str(models / "cases.json")]
    done = subprocess.run(
        [os.environ["LEYLINE_VLLM_PYTHON"], *script],
        env=os.environ | {
            "PYTHONPATH": packages, "OMP_WAIT_POLICY": "passive",
            "LEYLINE_TEST_SWITCHES": str(models),
        },
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_small_model_splices(found: dict[str, Any]) -> None:
    edited = found["llama"]["edited"]
    assert (edited["reason"], edited["reused_exact"]) == ("asked", len(A))
    assert (edited["reused_spliced"], edited["prefilled"]) == (len(B), len(Q))


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("windows", "layer_kind", "window"),
        ("hybrid", "layer_kind", "not all kept in one table"),
        ("quantised", "engine_cannot_splice", "quantised"),
        ("beside", "engine_cannot_splice", "another KV connector"),
        ("lora", "engine_cannot_splice", "LoRA"),
    ],
)
def test_servers_that_refuse(found: dict[str, Any], name: str, reason: str, said: str) -> None:
    for told in (found[name]["source"], found[name]["edited"]):
        assert told["reason"] == reason
        assert said.lower() in told["detail"].lower()
        assert (told["handle"], told["reused_spliced"]) == ("", 0)


@pytest.mark.parametrize("name", ["llama", "latents", "ranks"])
def test_one_layer_shows_that_keys_are_where_they_should_be(
    found: dict[str, Any], models: Path, name: str
) -> None:
    """In the first layer KV depends on its token and position alone: a splice is a prefill.

    Transformers says how much it would show if the keys were not turned.
    """
    edited, tops, plain = (found[name][part] for part in ("edited", "tops", "plain"))
    if name == "latents" and "prefix caching is off" in edited["detail"]:
        pytest.skip("without AMX, vLLM's MLA on a CPU cannot start behind KV that is there")
    assert (edited["reason"], edited["prefilled"]) == ("asked", len(Q))
    shared = tops.keys() & plain.keys()
    assert len(shared) > 5
    assert max(abs(tops[token] - plain[token]) for token in shared) < 0.1
    folder = models / ("llama" if name == "ranks" else name)
    turned, left = (by_hand(folder, turn=turn) for turn in (True, False))
    assert max(abs(float(turned[int(t)] - left[int(t)])) for t in shared) > 0.3


def test_one_rank_that_fails(found: dict[str, Any]) -> None:
    """The other rank has copied its shard; both compute the request, and it says what they say."""
    told, tops, plain = (found["ranks"][n] for n in ("failed", "failed_tops", "failed_plain"))
    assert (told["reason"], told["reused_spliced"]) == ("engine_cannot_splice", 0)
    assert "told to fail" in told["detail"]
    shared = tops.keys() & plain.keys()
    assert len(shared) > 5
    assert max(abs(tops[token] - plain[token]) for token in shared) < 0.1


def by_hand(folder: Path, *, turn: bool) -> torch.Tensor:
    """Log-probabilities behind the edit by transformers, keys turned or left as they were."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    latents = "deepseek" in model.config.model_type
    rope = RopeSpec(model.model.rotary_emb.inv_freq.double(), "interleaved" if latents else "half")
    first = MLA["qk_nope_head_dim"] if latents else 0
    with torch.inference_mode():
        cached = model(torch.tensor([A + X + B])).past_key_values.layers

        def move(layer: int, start: int, end: int, shift: int) -> tuple[Any, Any]:
            keys, values = (x[:, :, start:end] for x in (cached[layer].keys, cached[layer].values))
            tables = rope.tables(torch.tensor([shift if turn else 0]), torch.float64)
            return torch.cat(
                (keys[..., :first], rope.rotate(keys[..., first:], *tables)), -1
            ), values

        cut = [Directive(len(A), len(A + X), (), Mode.AMORTIZE)]
        return amortized_by(model, cached, move, A + X + B, cut, Q).log_softmax(-1)
