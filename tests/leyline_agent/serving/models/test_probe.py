"""The support matrix: which models can be spliced, which only served, which are refused."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from leyline_agent.errors import UnsupportedModel
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.models.glue import ATTENTION, register
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.models.probe import KVShape, probe
from leyline_agent.serving.models.selfcheck import check_seam

SMALL = {
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 101,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MLA = {
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 6,
    "first_k_dense_replace": 2,
    "n_group": 1,
    "topk_group": 1,
}
LAGUNA = {
    "layer_types": ["full_attention", "sliding_attention"],
    "num_experts": 8,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
GPT2 = {"n_embd": 96, "n_layer": 2, "n_head": 6}


def rope(kind, **more):
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **more}}


def rope_by_layer(sliding, full):
    """OLMo-3 with a table for windows and one for the rest."""
    return {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": sliding},
            "full_attention": {"rope_type": "default", "rope_theta": full},
        },
    }


ORIGINAL = {"original_max_position_embeddings": 128}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **ORIGINAL}
LONGROPE = {"factor": 2.0, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8, **ORIGINAL}

LONG = {"rope_type": "longrope", "rope_theta": 1e4, **LONGROPE}
PLAIN = {"rope_type": "default", "rope_theta": 1e4}

# Spliceable: the pairing and how many dimensions are rotated.
SPLICEABLE = {
    "llama": ({}, "half", 16),
    "llama-linear": (rope("linear", factor=2.0), "half", 16),
    "llama-yarn": (rope("yarn", factor=4.0, **ORIGINAL), "half", 16),
    "llama-llama3": (rope("llama3", **LLAMA3), "half", 16),
    "qwen2": ({}, "half", 16),
    "qwen3": ({}, "half", 16),
    "qwen3_moe": ({"num_experts": 4, "num_experts_per_tok": 2}, "half", 16),
    "mistral": ({"sliding_window": None}, "half", 16),
    "cohere": ({}, "interleaved", 16),
    "glm": ({}, "interleaved", 8),
    "phi": ({}, "half", 8),
    "gpt_neox": ({}, "half", 4),
    "gemma": ({}, "half", 16),
    "mistral-window": ({"sliding_window": 16}, "half", 16),
    "qwen2-window": (
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
        "half",
        16,
    ),
}
WINDOWS = {"mistral-window": (16, 16), "qwen2-window": (None, 16)}
# Served, but an edit re-prefills: why, and in what words.
SERVED = {
    "llama-dynamic": (rope("dynamic", factor=2.0), Reason.ROPE_KIND, "'dynamic'"),
    "llama-longrope": (rope("longrope", **LONGROPE), Reason.ROPE_KIND, "'longrope'"),
    "gpt2": (GPT2, Reason.ROPE_KIND, "'none'"),
    "opt": ({"ffn_dim": 128, "word_embed_proj_dim": 96}, Reason.ROPE_KIND, "'none'"),
    "gemma3_text-longrope": (
        {"rope_parameters": {"full_attention": LONG, "sliding_attention": PLAIN}},
        Reason.ROPE_KIND,
        "'longrope'",
    ),
    "laguna": (LAGUNA, Reason.ROPE_KIND, "2 rotary tables of different sizes"),
    "deepseek_v2": (MLA, Reason.ROPE_KIND, "do not move by a rotation"),  # expanded heads
}
# Equal to transformers up to the length at which their frequencies switch; gated attention.
UNEVEN = {"llama-longrope", "gemma3_text-longrope", "laguna"}
# Refused: attention that the engine does not compute, or state that it does not keep.
REFUSED = {
    "gemma2": ({}, "attention with 'softcap' is not supported"),
    "gpt_oss": ({"num_local_experts": 4}, "attention with 's_aux' is not supported"),
    "mamba": ({}, "0 of 2 layers keep a KV cache .*linear_attention.* recurrent and hybrid"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "1 of 2 layers keep a KV cache"),
    "stablelm": ({}, "StableLmAttention does not pass keyword arguments on"),
    "bloom": ({"n_head": 6, "n_layer": 2}, "0 of 2 layers keep a KV cache"),
    "llama4_text": ({}, "layers of kind chunked_attention are not supported"),
    "falcon_h1": ({}, "layers of kind hybrid are not supported"),
    "phimoe": ({"sliding_window": 16}, "its sliding window is not passed on to attention"),
    "mpt": ({"d_model": 96, "n_heads": 6, "n_layers": 2}, "its code does not run on the engine"),
    "diffllama": ({}, "through the engine's attention it computes something else"),
    "bert": ({}, "through the engine's attention it computes something else"),
}


def make(kind, extra):
    register()
    config = AutoConfig.for_model(kind.partition("-")[0], **{**SMALL, **extra})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)  # attention far from uniform
    return model


@pytest.mark.parametrize("kind", SPLICEABLE)
def test_spliceable(kind):
    extra, pairing, rotary_dim = SPLICEABLE[kind]
    model = make(kind, extra)
    facts = probe(model)
    check_seam(model)
    assert (facts.refusal, facts.detail) == (None, "")
    assert (facts.rope.pairing, facts.rope.rotary_dim) == (pairing, rotary_dim)
    assert facts.rope.inv_freq.dtype == torch.float64
    heads = 6 if kind == "gpt_neox" else 2
    windows = WINDOWS.get(kind, (None, None))
    assert facts.layers == tuple(KVShape(heads, 16, 16, window) for window in windows)


@pytest.mark.parametrize("kind", SERVED)
def test_served_without_splicing(kind):
    extra, reason, words = SERVED[kind]
    facts = probe(make(kind, extra))
    assert facts.rope is None
    assert facts.refusal is reason
    assert words in facts.detail


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")  # of the models, about kernels that are not installed
def test_refused(kind):
    extra, words = REFUSED[kind]
    model = make(kind, extra)
    with pytest.raises(UnsupportedModel, match=words):
        check_seam(probe_first(model))


def probe_first(model):
    probe(model)
    return model


@pytest.mark.parametrize("max_segments", [8, 0])
@pytest.mark.parametrize("kind", [k for k in SERVED if k not in UNEVEN])
def test_what_is_served_equals_transformers(kind, max_segments):
    """Learned positions, two tables, expanded MLA; test_engine covers what is spliceable."""
    model = make(kind, SERVED[kind][0])
    loaded = LoadedModel(kind, model, None, probe(model), 2048, torch.float32)
    check_seam(model)
    tokens = [(i * 37 + 11) % 97 + 3 for i in range(130)]
    engine = Engine.of(loaded, EngineConfig(kv_bytes=4 << 20, chunk=37, max_segments=max_segments))
    run = engine.start(Prompt(tokens[:120]))
    found = [run.logits, *(run.step(token) for token in tokens[120:])]
    reference = copy.deepcopy(model)
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0, 119:]
    limit = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(torch.stack(found), expected, atol=limit, rtol=0)


@pytest.mark.parametrize(
    ("kind", "extra", "thetas"),
    [
        ("gemma3_text", {"num_hidden_layers": 7}, [1e4] * 5 + [1e6, 1e4]),
        ("smollm3", {"no_rope_layer_interval": 2, "num_hidden_layers": 4}, [2e6, None] * 2),
        ("exaone4", {"num_hidden_layers": 4, "sliding_window_pattern": 2}, [1e4, None] * 2),
        ("olmo3", rope_by_layer(1e4, 5e5), [1e4, 5e5]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_layer_is_moved_by_its_own_rotation(kind, extra, thetas, dtype):
    model = make(kind, {"sliding_window": 16, **extra}).to(dtype)
    facts = probe(model)
    check_seam(model)
    half = torch.arange(8, dtype=torch.float64) / 8
    for layer, theta in zip(facts.layers, thetas, strict=True):
        expected = torch.zeros(8, dtype=torch.float64) if theta is None else theta**-half
        found = facts.rope.kinds[layer.rope].inv_freq
        # A model made in bfloat16, unlike one loaded, has rounded its tables too.
        rtol = 1e-6 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(found, expected, rtol=rtol, atol=0)
    assert len(facts.rope.kinds) == len(set(thetas))


def test_yarn_is_rotated_with_unit_magnitude():
    """The attention factor is on the cached key already; a move must not apply it again."""
    facts = probe(make("llama", rope("yarn", factor=4.0, **ORIGINAL)))
    x = torch.randn(16, generator=torch.Generator().manual_seed(1))
    cos, sin = facts.rope.tables(torch.tensor([91]))
    torch.testing.assert_close(facts.rope.rotate(x, cos[0], sin[0]).norm(), x.norm())


def test_the_check_leaves_the_model_on_the_engines_attention():
    model = make("llama", {})
    check_seam(model)
    assert model.config._attn_implementation == ATTENTION
    with pytest.raises(UnsupportedModel, match="does not pass keyword arguments"):
        model(torch.tensor([[1]]))


def test_the_check_catches_a_layer_that_keeps_state():
    model = make("llama", {})
    attention = model.model.layers[1].self_attn
    forward, seen = attention.forward, []

    def remembering(*args, **kwargs):
        out, weights = forward(*args, **kwargs)
        seen.append(out.mean())
        return out + sum(seen), weights

    attention.forward = remembering
    with pytest.raises(UnsupportedModel, match="computes something else"):
        check_seam(model)
