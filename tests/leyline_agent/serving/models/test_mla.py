"""Latent attention against transformers' own, which expands its latents into heads."""

import copy

import numpy as np
import pytest
import torch
from engine_cases import (
    CUTS,
    KEPT,
    TOLERANCE,
    VOCAB,
    amortized_by,
    assert_close,
    edited,
    engine_of,
    some_tokens,
)
from transformers import AutoConfig, AutoModelForCausalLM

from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import UnsupportedModel
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Prompt
from leyline_agent.serving.kv.slots import Extent
from leyline_agent.serving.models.glue import ATTENTION, register
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.models.mla import cache_latents
from leyline_agent.serving.models.probe import KVShape, probe
from leyline_agent.serving.models.selfcheck import check_seam
from leyline_agent.serving.repair import RepairConfig

BASE = {
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TINY = {
    **BASE,
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 48,
    "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 16,
    "v_head_dim": 20,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
# DeepSeek-V2-Lite's attention.
LITE = {
    **TINY,
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}


def yarn(**mscale):
    return {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 40.0,
            "beta_fast": 32,
            "beta_slow": 1,
            "original_max_position_embeddings": 128,
            **mscale,
        }
    }


EQUAL = yarn(mscale=0.707, mscale_all_dim=0.707)  # as released: cosines of magnitude 1
UNEQUAL = yarn(mscale=1.0, mscale_all_dim=0.0)  # cosines of magnitude 1.3689
# Both ways to the query, both pairings as transformers leaves them, experts, YaRN.
KINDS = {
    "deepseek_v2": (TINY, {"q_lora_rank": None}, "interleaved"),
    "deepseek_v2-lite": (LITE, EQUAL, "interleaved"),
    "deepseek_v2-magnitude": (TINY, UNEQUAL, "interleaved"),
    "deepseek_v3": (TINY, {}, "half"),
    "deepseek_v3-magnitude": (TINY, {"attention_bias": True, **UNEQUAL}, "half"),
    "deepseek_v3-half": (TINY, {"rope_interleave": False, "q_lora_rank": None, **EQUAL}, "half"),
}
# Other families whose attention is the same.
HEIRS = {
    "glm4_moe_lite": {},
    "youtu": {},
    "minicpm3": {},
    "longcat_flash": {"num_hidden_layers": 4, "head_dim": 16, "expert_ffn_hidden_size": 32},
    "axk1": {},
}
REFUSED = {
    "deepseek_v32": "an indexer picks the keys",
    "glm_moe_dsa": "an indexer picks the keys",
}


def make(kind, options):
    register()
    config = AutoConfig.for_model(kind.partition("-")[0], **options)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(0, 0.08)  # far from uniform, experts included
            elif parameter.requires_grad:
                parameter.data.add_(torch.randn(parameter.shape) * 0.1)
    return model


def load(kind) -> LoadedModel:
    base, extra, _ = KINDS[kind]
    model = make(kind, {**base, **extra})
    assert cache_latents(model) == model.config.num_hidden_layers
    return LoadedModel(kind, model, None, probe(model), 2048, torch.float32)


@pytest.fixture(scope="module", params=list(KINDS))
def loaded(request):
    return load(request.param)


@pytest.fixture(scope="module")
def magnitude():
    return load("deepseek_v3-magnitude")


def reference_of(loaded):
    """The model as transformers has it: a fresh one of the same weights."""
    config = copy.deepcopy(loaded.model.config)
    reference = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    reference.load_state_dict(loaded.model.state_dict())
    return reference


@torch.no_grad()
def plain_logits(loaded, tokens):
    return reference_of(loaded)(torch.tensor([tokens])).logits[0]


def turned(rope, key_pe, by):
    """`key_pe` [..., d] rotated by `by` positions as complex numbers, in float64."""
    phase = torch.polar(torch.ones_like(rope.inv_freq), rope.inv_freq * by)
    pairs = key_pe.double()
    if rope.pairing == "interleaved":
        left, right = pairs[..., 0::2], pairs[..., 1::2]
    else:
        left, right = pairs.chunk(2, -1)
    out = torch.complex(left, right) * phase
    parts = (out.real, out.imag)
    joined = torch.stack(parts, -1).flatten(-2) if rope.pairing == "interleaved" else None
    return (torch.cat(parts, -1) if joined is None else joined).float()


@torch.no_grad()
def amortized_logits(loaded, tokens, directives, appended):
    """transformers with a cache of latents whose rotary part is turned explicitly."""
    reference = reference_of(loaded)
    full = reference(torch.tensor([tokens])).past_key_values

    def move(index, start, end, shift):
        layer = full.layers[index]  # transformers caches the latent as keys, the rest as values
        key_pe = turned(loaded.facts.rope, layer.values[:, :, start:end], shift)
        return layer.keys[:, :, start:end], key_pe

    return amortized_by(reference, full.layers, move, tokens, directives, appended)


@pytest.mark.parametrize("kind", KINDS)
def test_one_latent_a_token_is_what_is_cached(kind):
    base, _, pairing = KINDS[kind]
    loaded = load(kind)
    check_seam(loaded.model)
    latent, rotary = base["kv_lora_rank"], base["qk_rope_head_dim"]
    shape = KVShape(1, latent + rotary, latent, None, latent=True)
    assert set(loaded.facts.layers) == {shape}
    assert loaded.facts.refusal is None
    assert (loaded.facts.rope.pairing, loaded.facts.rope.rotary_dim) == (pairing, rotary)
    engine = engine_of(loaded)
    store = engine.executor.store
    assert store.bytes_per_token == base["num_hidden_layers"] * (latent + rotary) * 4
    for keys, values in zip(store.keys, store.values, strict=True):
        assert values.data_ptr() == keys[..., rotary:].data_ptr()


@pytest.mark.parametrize("chunk", [1024, 37])
def test_prefill_and_decode_equal_transformers(loaded, chunk):
    engine = engine_of(loaded, chunk=chunk)
    tokens = some_tokens(150)
    expected = plain_logits(loaded, tokens)
    run = engine.start(Prompt(tokens[:140]))
    assert_close(run.logits, expected[139])
    for position in range(140, 150):
        assert_close(run.step(tokens[position]), expected[position])


@pytest.mark.parametrize("max_segments", [64, 0])
def test_amortize_equals_a_reference_that_rotates_the_rotary_part(loaded, max_segments):
    engine = engine_of(loaded, max_segments=max_segments)
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    _, run = edited(engine, tokens, CUTS, appended)
    assert_close(run.logits, amortized_logits(loaded, tokens, CUTS, appended))
    assert run.receipt.reused_spliced == KEPT


def test_amortize_differs_from_an_honest_prefill(loaded):
    """The check above would not catch an engine that quietly recomputes."""
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    _, run = edited(engine_of(loaded), tokens, CUTS, appended)
    honest = plain_logits(loaded, run.sequence.tokens)[-1]
    assert (run.logits - honest).abs().max() > 10 * TOLERANCE * honest.abs().max()


def test_repair_of_the_whole_suffix_equals_forget(loaded):
    cuts = [d._replace(mode=Mode.REPAIR) for d in CUTS]
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    engine = engine_of(loaded, repair=RepairConfig(window=10_000))
    _, run = edited(engine, tokens, cuts, appended)
    assert run.receipt.recomputed == KEPT
    assert_close(run.logits, plain_logits(loaded, run.sequence.tokens)[-1])


@pytest.mark.parametrize("max_segments", [64, 0])
def test_scattered_repair_equals_recomputing_one_by_one(magnitude, max_segments):
    tokens = some_tokens(60) + some_tokens(40) + some_tokens(40, seed=3)
    cut = [Directive(10, 40, (5,), Mode.REPAIR)]
    appended = some_tokens(3, seed=4)
    config = RepairConfig(window=8, tail=20)
    _, run = edited(
        engine_of(magnitude, repair=config, max_segments=max_segments), tokens, cut, appended
    )
    assert run.receipt.edits[0].recomputed["echo"] >= 15
    _, slow = edited(engine_of(magnitude, repair=config, chunk=1), tokens, cut, appended)
    assert_close(run.logits, slow.logits)


@pytest.mark.parametrize("kind", ["deepseek_v2", "deepseek_v3-magnitude"])
def test_the_triton_kernels_compute_the_same(kind, monkeypatch):
    """Interpreted: prompts in chunks, decoding, a splice, and a repair of everything."""
    pytest.importorskip("triton", reason="Triton runs on Linux only")
    monkeypatch.setenv("LEYLINE_KERNELS", "triton")
    loaded = load(kind)
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    engine = engine_of(loaded, chunk=130)
    assert type(engine.executor.backend).__name__ == "TritonBackend"
    with np.errstate(all="ignore"):
        _, run = edited(engine, tokens, CUTS, appended)
        assert_close(run.logits, amortized_logits(loaded, tokens, CUTS, appended))
        run = engine.start(Prompt(tokens[:50], "decode"))
        expected = plain_logits(loaded, tokens[:53])
        for position in range(50, 53):
            assert_close(run.step(tokens[position]), expected[position])
        engine = engine_of(loaded, repair=RepairConfig(window=10_000))
        _, run = edited(engine, tokens, [d._replace(mode=Mode.REPAIR) for d in CUTS], appended)
        assert_close(run.logits, plain_logits(loaded, run.sequence.tokens)[-1])


@pytest.mark.parametrize("max_segments", [64, 0])
def test_forget_equals_a_fresh_prefill(loaded, max_segments):
    cuts = [CUTS[1]._replace(mode=Mode.FORGET), CUTS[2]]
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    _, run = edited(engine_of(loaded, max_segments=max_segments), tokens, cuts, appended)
    assert_close(run.logits, plain_logits(loaded, run.sequence.tokens)[-1])
    assert run.receipt.reused_spliced == 0
    assert run.receipt.edits[-1].reason is Reason.BEHIND_FORGET


def test_zeroed_slots_hold_no_latent(magnitude):
    engine = engine_of(magnitude)
    run = engine.start(Prompt(some_tokens(50)))
    start, end = run.sequence.extents()[0]
    engine.executor.zero([Extent(start + 10, start + 20)])
    for keys in engine.executor.store.keys:
        assert keys[start : start + 10].any(-1).all()
        assert not keys[start + 10 : start + 20].any()
        assert keys[start + 20 : end].any(-1).all()


@pytest.mark.parametrize("kind", HEIRS)
def test_other_families_with_the_same_attention(kind):
    model = make(kind, {**TINY, **HEIRS[kind]})
    assert cache_latents(model) == model.config.num_hidden_layers
    facts = probe(model)
    check_seam(model)
    assert (facts.refusal, facts.detail) == (None, "")
    assert all(layer.latent for layer in facts.layers)


@pytest.mark.parametrize("kind", REFUSED)
def test_sparse_attention_is_refused_however_short_the_context(kind):
    model = make(kind, {**TINY, "index_topk": 2048, "index_n_heads": 2, "index_head_dim": 32})
    cache_latents(model)
    with pytest.raises(UnsupportedModel, match=REFUSED[kind]):
        probe(model)


def test_other_attention_implementations_are_left_as_they_were():
    model = make("deepseek_v3", TINY)
    model.set_attn_implementation("eager")
    ids = torch.tensor([some_tokens(12)])
    with torch.no_grad():
        before = model(ids).logits
        cache_latents(model)
        assert torch.equal(model(ids).logits, before)
        model.set_attn_implementation(ATTENTION)
        with pytest.raises(UnsupportedModel, match="does not pass keyword arguments"):
            model(ids)


def test_a_projection_that_is_no_plain_matrix_is_not_absorbed():
    """A bias, or a quantised projection: served with expanded heads, as the model computes them."""
    model = make("deepseek_v3", TINY)
    up = model.model.layers[1].self_attn.kv_b_proj
    up.bias = torch.nn.Parameter(torch.randn(up.out_features) * 0.1)
    assert cache_latents(model) == 2
    facts = probe(model)
    check_seam(model)
    assert [layer.latent for layer in facts.layers] == [True, False, True]
    assert facts.refusal is Reason.ROPE_KIND


def test_models_without_latents_stay_as_they_are():
    model = make("llama", {**BASE, "hidden_size": 32, "num_hidden_layers": 1})
    assert cache_latents(model) == 0
