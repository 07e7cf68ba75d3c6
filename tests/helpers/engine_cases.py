"""Edits of random tokens on an engine, and what a reference model makes of the same edits."""

import random

import torch
from transformers import DynamicCache

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.modes import ModeRules

TOLERANCE = 1e-4  # of the largest logit
VOCAB = 101
NO_GATE = ModeRules(gate_tokens=0, gate_share=2.0)
CUTS = (
    Directive(20, 61, (5, 6, 7), Mode.AMORTIZE),
    Directive(120, 150, (), Mode.AMORTIZE),
    Directive(200, 200, (9,) * 11, Mode.AMORTIZE),
)
KEPT = 300 - 20 - 41 - 30  # of 300 tokens, those behind the first of CUTS that stay


def engine_of(loaded, **config) -> Engine:
    """An engine with little memory, whose gate lets every splice through."""
    return Engine.of(loaded, EngineConfig(**{"kv_bytes": 16 << 20, "rules": NO_GATE, **config}))


def some_tokens(n: int, seed: int = 0) -> list[int]:
    """Random tokens of the small vocabulary, none of them special."""
    rng = random.Random(seed)
    return [rng.randrange(3, VOCAB) for _ in range(n)]


def items_of(*directives: Directive) -> list[Lowered]:
    """Directives as lowering gives them: each by itself, carried out as asked."""
    return [Lowered(d, (i,), d.mode) for i, d in enumerate(directives)]


def edited(engine, tokens, directives, appended, tenant="edits"):
    """A cached sequence and the run of its edit; the run is another tenant's, so no tree helps."""
    base = engine.start(Prompt(list(tokens), "base")).finish()
    new = apply(tokens, directives) + appended
    prompt = Prompt(new, tenant, base, items_of(*directives), len(appended), version=2)
    return base, engine.start(prompt)


def assert_close(found, expected):
    """Logits differ by no more than float32 explains."""
    limit = TOLERANCE * float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=limit, rtol=0)


def amortized_by(reference, layers, move, tokens, directives, appended):
    """Logits behind edited tokens, by transformers with a cache put together by hand.

    Args:
        reference: a transformers model.
        layers: what it cached of `tokens`, layer by layer: objects with `keys` and `values`.
        move: gives a layer's keys and values [start, end), `shift` positions further on.
        tokens: the tokens before the edits.
        directives: the edits, by place.
        appended: the tokens behind the edited ones.
    """
    held = [[(layer.keys[:, :, :0], layer.values[:, :, :0])] for layer in layers]

    def keep(start, end, shift):
        for index, parts in enumerate(held):
            parts.append(move(index, start, end, shift))

    def compute(ids):
        cache = DynamicCache()
        for index, parts in enumerate(held):
            cache.update(*(torch.cat(t, 2) for t in zip(*parts, strict=True)), index)
        at = cache.get_seq_length()
        where = torch.arange(at, at + len(ids))[None]
        out = reference(torch.tensor([ids]), past_key_values=cache, position_ids=where)
        for parts, layer in zip(held, out.past_key_values.layers, strict=True):
            parts.append((layer.keys[:, :, at:], layer.values[:, :, at:]))
        return out.logits[0, -1]

    cursor = shift = 0
    for directive in directives:
        keep(cursor, directive.start, shift)
        if directive.replacement:
            compute(list(directive.replacement))
        shift += directive.delta
        cursor = directive.end
    keep(cursor, len(tokens), shift)
    return compute(appended)
