"""The engine's cases of `kernels.py`: turns after an edit, decoding in batches, working copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from common import interleaved, random_tokens
from kernel_cases import Row
from turns import Edits

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt, Run
from leyline_agent.serving.kernels.torch_backend import TorchBackend
from leyline_agent.serving.kv.store import bytes_per_token
from leyline_agent.serving.models.glue import ATTENTION, register
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.models.mla import cache_latents
from leyline_agent.serving.models.probe import probe
from leyline_agent.serving.models.selfcheck import check_seam

__all__ = ["LARGE", "TOY", "engine_rows", "random_engine"]

VOCABULARY = 40_000  # what `random_tokens` draws from
_STEPS = 8

_ROPE = {"rope_type": "default", "rope_theta": 5e5}
LARGE: dict[str, dict[str, Any]] = {
    "8B GQA": {
        "model_type": "llama",
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 140_000,
        "rope_parameters": _ROPE,
    },
    "DeepSeek-V2-Lite": {
        "model_type": "deepseek_v2",
        "vocab_size": 102_400,
        "hidden_size": 2048,
        "intermediate_size": 10_944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "topk_method": "greedy",
        "max_position_embeddings": 140_000,
        "rope_parameters": _ROPE,
    },
}
"""Configurations for random weights: what is measured does not depend on what the weights say."""

TOY: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rope_parameters": _ROPE,
}


def random_engine(name: str, config: dict[str, Any], device: str, longest: int) -> Engine:
    """An engine for a model of random weights, with room for four sequences of `longest`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    register()
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**config), dtype=torch.bfloat16, attn_implementation=ATTENTION
        )
    model.to(device).eval().requires_grad_(False)
    cache_latents(model)
    facts = probe(model)
    assert facts.refusal is None, facts.detail
    check_seam(model)
    loaded = LoadedModel(
        name, model, None, facts, config["max_position_embeddings"], torch.bfloat16
    )
    room = 4 * (longest + 512) * bytes_per_token(facts.layers, torch.bfloat16)
    return Engine.of(loaded, EngineConfig(kv_bytes=2 * room))


def engine_rows(
    engine: Engine, name: str, lengths: Sequence[int], batches: Sequence[int], rounds: int
) -> Iterator[Row]:
    """All of an engine's rows."""
    for length in lengths:
        yield from turns_after_an_edit(engine, name, length, rounds)
        engine.forest.evict(engine.pool.num_used)
    yield from decoding(engine, name, lengths[0], batches, rounds)
    backend = getattr(engine.executor, "backend", None)
    if isinstance(backend, TorchBackend):
        yield from reading_many_segments(engine, backend, name, lengths[0], rounds)


def turns_after_an_edit(engine: Engine, name: str, length: int, rounds: int) -> Iterator[Row]:
    """Milliseconds to the first token; a quarter of the context was cut out at one eighth.

    FORGET computes what an engine with an exact prefix cache computes.
    """
    edits = Edits(engine, length)
    modes = {"append": None, "amortize": Mode.AMORTIZE, "forget": Mode.FORGET}
    arms = {n: waiting(lambda n=n, m=m: edits.turn(n, m)) for n, m in modes.items()}
    times = {arm: spread.median for arm, spread in interleaved(arms, rounds).items()}
    kept = length - length // 4 - length // 8
    assert edits.receipts["amortize"].reused_spliced == kept, "the suffix must be spliced"
    assert edits.receipts["forget"].prefilled >= kept, "the suffix must be computed again"
    for arm, ms in times.items():
        ratio = ms / times["append"]
        yield Row(f"{name}, turn, {arm}", length, ms=ms, ratio=ratio, against="turn, append")
    edits.base.release()


def decoding(
    engine: Engine, name: str, length: int, batches: Sequence[int], rounds: int
) -> Iterator[Row]:
    """Milliseconds a step of so many sequences at once; the ratio is of tokens a second."""
    runs = [engine.start(Prompt(random_tokens(length, 0), "decode"))]
    runs[0].finish()  # the others find its prefix in the tree
    while len(runs) < max(batches):
        runs.append(engine.start(Prompt(random_tokens(length, 0), "decode")))
    first = 0.0
    for count in batches:
        arm = waiting(lambda n=count: step(engine, runs[:n]))
        ms = interleaved({"step": arm}, rounds)["step"].median / _STEPS
        assert len(runs[count - 1].sequence) > length, "every run must have grown"
        first = first or ms
        ratio = count * first / ms
        against = "tokens/s of one"
        yield Row(f"{name}, decode step", length, count, ms=ms, ratio=ratio, against=against)
    for run in runs:
        run.sequence.release()


def step(engine: Engine, runs: Sequence[Run]) -> None:
    """A few tokens each, all runs in one forward pass a token."""
    for _ in range(_STEPS):
        for run in runs:
            run.append([7])
        engine.compute([(run, 1) for run in runs])


def reading_many_segments(
    engine: Engine, backend: TorchBackend, name: str, length: int, rounds: int
) -> Iterator[Row]:
    """Decoding a sequence in many segments: where they lie, and from torch's working copy."""
    cuts = min(125, length // 16)
    apart = length // cuts
    items = [
        Lowered(Directive(i * apart + 4, i * apart + 6, (), Mode.AMORTIZE), (i,), Mode.AMORTIZE)
        for i in range(cuts)
    ]
    tokens = random_tokens(length, 1)
    base = engine.start(Prompt(list(tokens), "segments")).finish()
    edited = apply(tokens, [item.directive for item in items]) + [5]
    run = engine.start(Prompt(edited, "cut", base, items, 1, 1))
    segments, usual = len(run.sequence.segments), backend.max_segments

    def decode(most: int) -> None:
        backend.max_segments = most
        step(engine, [run])

    arms = {"zero-copy": lambda: decode(1 << 30), "working copy": lambda: decode(0)}
    times = interleaved(arms, rounds)
    backend.max_segments = usual
    assert segments > 1, "there must be segments to read"
    assert backend.copies, "a working copy must have been made"
    zero = times["zero-copy"].median
    for arm, spread in times.items():
        ms = spread.median / _STEPS
        ratio = spread.median / zero
        at = {"tokens": length, "segments": segments}
        yield Row(f"{name}, decode, {arm}", ms=ms, ratio=ratio, against="zero-copy", **at)
    run.sequence.release()
    base.release()


def waiting(arm: Callable[[], object]) -> Callable[[], None]:
    """The arm, and the device's end of it."""

    def timed() -> None:
        arm()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return timed
