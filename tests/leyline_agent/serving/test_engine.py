"""The engine against transformers in float32: plain, spliced, repaired, forgotten."""

import copy

import pytest
import torch
from engine_cases import (
    CUTS,
    TOLERANCE,
    VOCAB,
    amortized_by,
    assert_close,
    edited,
    engine_of,
    items_of,
    some_tokens,
)
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import ContextOverflow, OutOfSlots, UnsupportedModel
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.models.glue import ATTENTION, register
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.models.probe import probe
from leyline_agent.serving.repair import RepairConfig

SMALL = {
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
# Grouped and plain heads, biases, query-key norms, both pairings, partial rotary, YaRN, windows
# (shorter than the suffix behind an edit, longer, and in some layers only), layers without
# positions, two tables.
KINDS = {
    "llama": {},
    "llama-yarn": {"rope_parameters": YARN},
    "qwen2": {},
    "qwen3": {},
    "cohere": {},
    "glm": {},
    "gpt_neox": {},
    "mistral-short": {"sliding_window": 20},
    "mistral-long": {"sliding_window": 130},
    "smollm3": {"no_rope_layer_interval": 2},
    "gemma3_text": {
        "sliding_window": 40,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "qwen2-window": {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 1},
}


def make_model(kind: str, **extra) -> LoadedModel:
    register()
    torch.manual_seed(7)
    config = AutoConfig.for_model(
        kind.partition("-")[0], **{**SMALL, **KINDS.get(kind, {}), **extra}
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)  # attention that is far from uniform, so that errors show
    return LoadedModel(kind, model, None, probe(model), 2048, torch.float32)


def reference_of(loaded: LoadedModel):
    reference = copy.deepcopy(loaded.model)
    reference.set_attn_implementation("eager")
    return reference


@pytest.fixture(scope="module", params=list(KINDS))
def loaded(request):
    return make_model(request.param)


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


@torch.no_grad()
def plain_logits(loaded, tokens):
    return reference_of(loaded)(torch.tensor([tokens])).logits[0]


def swapped(rope, keys):
    if rope.pairing == "half":
        return keys.roll(rope.rotary_dim // 2, -1)
    return keys.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


@torch.no_grad()
def amortized_logits(loaded, tokens, directives, appended):
    """transformers with a cache whose suffix keys are rotated explicitly, in float64."""
    reference = reference_of(loaded)
    ropes = [loaded.facts.rope.kinds[layer.rope] for layer in loaded.facts.layers]
    full = DynamicCache()  # with no configuration: one that keeps what leaves a window, too
    reference(torch.tensor([tokens]), past_key_values=full)

    def move(index, start, end, shift):
        layer, rope = full.layers[index], ropes[index]
        cos, sin = (t.double() for t in rope.tables(torch.tensor([shift])))
        dim = rope.rotary_dim
        keys = layer.keys[:, :, start:end].double()
        turned = keys[..., :dim] * cos[0] + swapped(rope, keys[..., :dim]) * sin[0]
        moved = torch.cat((turned, keys[..., dim:]), -1).float()
        return moved, layer.values[:, :, start:end]

    return amortized_by(reference, full.layers, move, tokens, directives, appended)


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
def test_amortize_equals_a_reference_that_rotates_keys(loaded, max_segments):
    """Both ways: segments met by rotated queries, and a rotated working copy."""
    engine = engine_of(loaded, max_segments=max_segments)
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    _, run = edited(engine, tokens, CUTS, appended)
    assert_close(run.logits, amortized_logits(loaded, tokens, CUTS, appended))
    assert run.receipt.reused_spliced == 300 - 20 - 41 - 30
    assert bool(engine.executor.backend.copies) == (max_segments == 0)


def test_amortize_differs_from_an_honest_prefill(llama):
    """The check above would not catch an engine that quietly recomputes."""
    engine = engine_of(llama)
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    _, run = edited(engine, tokens, CUTS, appended)
    honest = plain_logits(llama, run.sequence.tokens)[-1]
    assert (run.logits - honest).abs().max() > 10 * TOLERANCE * honest.abs().max()


def test_repair_of_the_whole_suffix_equals_forget(loaded):
    cuts = [d._replace(mode=Mode.REPAIR) for d in CUTS]
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    engine = engine_of(loaded, repair=RepairConfig(window=10_000))
    _, run = edited(engine, tokens, cuts, appended)
    assert run.receipt.recomputed == 300 - 20 - 41 - 30
    assert run.receipt.edits[0].mode_used is Mode.REPAIR
    assert_close(run.logits, plain_logits(loaded, run.sequence.tokens)[-1])
    assert run.sequence.canonical_len == len(run.sequence)


@pytest.mark.parametrize("max_segments", [64, 2])
def test_scattered_repair_equals_recomputing_the_same_tokens_one_by_one(llama, max_segments):
    """Boundary, echoes and tail in one forward pass, against one pass a token, in order."""
    tokens = some_tokens(120) + some_tokens(60) + some_tokens(120, seed=3)
    cut = [Directive(10, 60, (5,), Mode.REPAIR)]
    appended = some_tokens(3, seed=4)
    ids = frozenset({5, 6})
    config = RepairConfig(window=8, tail=20, delimiter=3, delimiter_ids=ids)
    _, run = edited(
        engine_of(llama, repair=config, max_segments=max_segments), tokens, cut, appended
    )
    kinds = run.receipt.edits[0].recomputed
    assert kinds["boundary"] == 8
    assert kinds["echo"] >= 30
    assert kinds["tail"] > 0
    assert kinds["delimiter"] > 0
    _, slow = edited(engine_of(llama, repair=config, chunk=1), tokens, cut, appended)
    assert_close(run.logits, slow.logits)


@pytest.mark.parametrize("max_segments", [64, 0])
def test_forget_without_an_earlier_splice_equals_a_fresh_prefill(loaded, max_segments):
    cuts = [CUTS[0], CUTS[1]._replace(mode=Mode.FORGET), CUTS[2]]
    tokens, appended = some_tokens(300), some_tokens(9, seed=1)
    engine = engine_of(loaded, max_segments=max_segments)
    _, run = edited(engine, tokens, cuts[1:], appended)
    assert_close(run.logits, plain_logits(loaded, run.sequence.tokens)[-1])
    assert run.receipt.reused_spliced == 0
    assert run.receipt.edits[-1].reason is Reason.BEHIND_FORGET
    assert run.sequence.canonical_len == len(run.sequence)


def test_edits_of_edits_follow_the_first_rotation(llama):
    """Ten edits one after another: the same as one edit that removes all ten spans."""
    engine = engine_of(llama)
    tokens = some_tokens(400)
    sequence = engine.start(Prompt(list(tokens), "base")).finish()
    for version in range(2, 12):
        cut = Directive(30, 45, (), Mode.AMORTIZE)
        new = apply(sequence.tokens, [cut])
        run = engine.start(Prompt(new, "edits", sequence, items_of(cut), 0, version))
        sequence = run.finish()
    once = [Directive(30, 180, (), Mode.AMORTIZE)]
    expected = amortized_logits(llama, tokens[:-1], once, [tokens[-1]])
    assert_close(run.logits, expected)


def test_the_figures_add_up_and_every_slot_is_given_back(llama):
    engine = engine_of(llama)
    base, run = edited(engine, some_tokens(300), CUTS, some_tokens(9, seed=1), tenant="base")
    receipt = run.receipt
    assert (receipt.removed, receipt.inserted, receipt.appended) == (71, 14, 9)
    assert receipt.prompt == len(run.sequence) == 300 - 71 + 14 + 9
    assert receipt.compute == 14 + 9
    assert [e.suffix for e in receipt.edits] == [209, 150, 100]
    base.release()
    run.abandon()
    engine.forest.evict(1 << 30)
    assert engine.pool.num_used == 0


def test_canonical_kv_is_found_again_inside_a_tenant_only(llama):
    engine = engine_of(llama)
    tokens = some_tokens(200)
    engine.start(Prompt(list(tokens), "one")).abandon()
    again = engine.start(Prompt([*tokens, 4, 5], "one"))
    assert again.receipt.reused_exact == 200
    other = engine.start(Prompt([*tokens, 4, 5], "two"))
    assert other.receipt.reused == 0
    assert torch.equal(again.logits.argmax(), other.logits.argmax())


def test_spliced_kv_never_reaches_the_tree(llama):
    engine = engine_of(llama)
    _, run = edited(engine, some_tokens(300), CUTS, some_tokens(9, seed=1))
    prompt = list(run.sequence.tokens)
    run.finish()
    other = engine.start(Prompt(prompt, "edits"))
    assert other.receipt.reused_spliced == 0
    assert other.receipt.reused_exact == 20 + 3  # before the cut, and its replacement
    assert_close(other.logits, plain_logits(llama, prompt)[-1])


def test_an_edit_of_canonical_kv_already_cached_reuses_that(llama):
    """Where the tree holds the edited prompt honestly computed, it wins over the splice."""
    engine = engine_of(llama)
    tokens, cut = some_tokens(300), Directive(50, 100, (), Mode.AMORTIZE)
    engine.start(Prompt(apply(tokens, [cut]), "edits")).abandon()
    _, run = edited(engine, tokens, [cut], [7])
    assert run.receipt.reused_spliced == 0
    assert run.receipt.reused_exact == 250


def test_a_prompt_longer_than_the_context_is_refused(llama):
    with pytest.raises(ContextOverflow, match="2049 tokens do not fit the model's context of 2048"):
        engine_of(llama).start(Prompt(some_tokens(2049)))


def test_a_full_pool_evicts_idle_prefixes_then_refuses(llama):
    size = 512  # bytes a token: 2 layers x 2 heads x 16 x 2 x 4
    engine = engine_of(llama, kv_bytes=2 * 300 * size)
    engine.start(Prompt(some_tokens(250, seed=1))).abandon()
    run = engine.start(Prompt(some_tokens(250, seed=2)))
    assert run.receipt.prefilled == 250
    with pytest.raises(OutOfSlots):
        engine.start(Prompt(some_tokens(200, seed=3)))
    run.abandon()
    engine.start(Prompt(some_tokens(200, seed=3))).abandon()


def test_making_room_takes_nothing_that_is_reused(llama):
    """The sequence that is edited may go; the slots that the new one shares with it may not."""
    engine = engine_of(llama, kv_bytes=2 * 250 * 512)
    assert engine.pool.num_slots == 250
    tokens, cut = some_tokens(200), Directive(20, 120, (5,) * 100, Mode.AMORTIZE)
    base = engine.start(Prompt(list(tokens), "base")).finish()
    engine.reclaimers.append(lambda needed: base.release())
    prompt = Prompt([*apply(tokens, [cut]), 7], "base", base, items_of(cut), 1, version=2)
    run = engine.start(prompt)
    assert len(base) == 0
    assert (run.receipt.previous, run.receipt.reused_spliced) == (200, 80)
    assert_close(run.logits, amortized_logits(llama, tokens, [cut], [7]))
    run.abandon()
    engine.forest.evict(250)
    assert engine.pool.num_used == 0


def test_the_last_token_is_computed_even_when_everything_is_cached(llama):
    engine = engine_of(llama)
    tokens = some_tokens(64)
    first = engine.start(Prompt(list(tokens)))
    first.abandon()
    again = engine.start(Prompt(list(tokens)))
    assert again.receipt.prefilled == 1
    assert_close(again.logits, first.logits)


def test_a_model_is_loaded_where_the_configuration_says(tiny_folder):
    size = {"kv_bytes": 8 << 20, "dtype": "float32"}
    engine = Engine.load(tiny_folder, EngineConfig(device="cpu", **size))
    assert engine.model is not None
    assert engine.model.device.type == "cpu"
    with pytest.raises(UnsupportedModel, match="no device 'cuda:99' here"):
        Engine.load(tiny_folder, EngineConfig(device="cuda:99", **size))
