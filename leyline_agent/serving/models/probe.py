"""Probing a model: the shape of its KV, and whether moving a cached key is valid.

An allow-list of rope kinds and layer kinds comes first; then the model itself is asked. One token
alone attends only to itself, so its hidden states do not depend on its position: its key at
position p + d must be its key at p rotated by d, and its value must not change, in every layer.
That settles pairing, partial rotary, learned positions and position-free layers by measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leyline_agent.errors import UnsupportedModel
from leyline_agent.receipt import Reason
from leyline_agent.serving.models.rope import Pairing, RopeSpec

__all__ = ["KVShape", "ModelFacts", "forward", "probe", "text_config"]

# Inverse frequencies of these kinds do not depend on the length (transformers' rope types).
FIXED_ROPE_KINDS = frozenset({"default", "linear", "llama3", "yarn"})
# Kinds of layers whose attention the engine computes (transformers' layer types).
ATTENTION_LAYER_KINDS = frozenset({"full_attention", "sliding_attention"})
_PAIRINGS: tuple[Pairing, ...] = ("half", "interleaved")
_POSITION, _DELTA = 5, 37
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}


class KVShape(NamedTuple):
    """One layer's KV: heads, key and value dimensions, sliding window if any.

    With `latent` (MLA) a token's values are the last entries of its keys, kept once. `rope` says
    which of the model's rotations its keys have (`RopeSpec.kinds`).
    """

    heads: int
    key_dim: int
    value_dim: int
    window: int | None
    latent: bool = False
    rope: int = 0

    @property
    def num_entries(self) -> int:
        """How many numbers a token takes in this layer."""
        return self.heads * (self.key_dim + (0 if self.latent else self.value_dim))


@dataclass(frozen=True)
class ModelFacts:
    """What the engine must know of a model.

    Attributes:
        layers: each layer's KV shape.
        rope: how to move a key; None when cached keys cannot be moved.
        refusal: why not; None when they can.
        detail: the reason in words.
    """

    layers: tuple[KVShape, ...]
    rope: RopeSpec | None
    refusal: Reason | None = None
    detail: str = ""


@dataclass
class _Capture:
    """Records each layer's keys and values; a lone token's attention is its own value."""

    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    options: dict[int, Any] = field(default_factory=dict)

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, options: Any
    ) -> Tensor:
        self.keys[layer], self.values[layer], self.options[layer] = key, value, options
        groups = query.shape[0] // value.shape[0]
        return value.repeat_interleave(groups, 0).transpose(0, 1)


@torch.inference_mode()
def probe(model: nn.Module) -> ModelFacts:
    """Measure a transformers causal LM loaded with the engine's attention.

    Raises:
        UnsupportedModel: layers without a KV cache of their own, or attention the engine lacks.
    """
    config = text_config(model)
    _check_sparse(config, model)
    first, second = _Capture(), _Capture()
    forward(model, [1], start=_POSITION, leyline=first)
    forward(model, [1], start=_POSITION + _DELTA, leyline=second)
    _check_layers(config, first)
    _check_windows(config, first)
    found = _movable(model, config, first, second)
    layers = tuple(
        KVShape(
            heads=first.keys[i].shape[0],
            key_dim=first.keys[i].shape[-1],
            value_dim=first.values[i].shape[-1],
            window=first.options[i].get("sliding_window"),
            latent=_is_end_of(first.values[i], first.keys[i]),
            rope=found.kinds.get(i, 0),
        )
        for i in sorted(first.keys)
    )
    refusal = Reason.ROPE_KIND if found.rope is None else None
    return ModelFacts(layers, found.rope, refusal, found.detail)


def _is_end_of(value: Tensor, key: Tensor) -> bool:
    """Whether the values are the memory of the keys' last entries."""
    size = value.shape[-1]
    return value.data_ptr() == key[..., -size:].data_ptr() and value.shape[0] == key.shape[0]


def text_config(model: nn.Module) -> Any:
    """The configuration of a model's language part."""
    config: Any = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def forward(model: nn.Module, ids: Sequence[int], start: int = 0, **attend: Any) -> Tensor:
    """Float32 logits [len(ids), vocab] of tokens at positions start..

    Raises:
        UnsupportedModel: the model's code does not run on the engine's attention.
    """
    device = next(model.parameters()).device
    where = torch.arange(start, start + len(ids), device=device)[None]
    inputs = {"input_ids": torch.tensor([ids], device=device), "position_ids": where}
    try:
        out = model(**inputs, use_cache=False, logits_to_keep=0, **attend)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise UnsupportedModel(
            f"{text_config(model).model_type}: its code does not run on the engine's attention "
            f"({type(error).__name__}: {error}); serve this model with another engine"
        ) from error
    logits: Tensor = out.logits[0].float()
    return logits


def _check_sparse(config: Any, model: nn.Module) -> None:
    """Refuse layers that attend only to keys an indexer picks: it has a key cache of its own."""
    if any("Indexer" in type(module).__name__ for module in model.modules()):
        raise UnsupportedModel(
            f"{config.model_type}: sparse attention (an indexer picks the keys) is not supported; "
            "serve this model with another engine"
        )


def _check_layers(config: Any, capture: _Capture) -> None:
    expected = int(config.num_hidden_layers)
    if len(capture.keys) != expected:
        kinds = sorted(set(getattr(config, "layer_types", None) or [])) or "unknown"
        raise UnsupportedModel(
            f"{config.model_type}: {len(capture.keys)} of {expected} layers keep a KV cache "
            f"(layer kinds: {kinds}); recurrent and hybrid models cannot be served here"
        )
    for options in capture.options.values():
        for name in ("softcap", "s_aux"):
            if options.get(name) is not None:
                raise UnsupportedModel(
                    f"{config.model_type}: attention with {name!r} is not supported; "
                    "serve this model with another engine"
                )


def _check_windows(config: Any, capture: _Capture) -> None:
    """Refuse layers that hide keys in a way the engine is not told of."""
    kinds = list(getattr(config, "layer_types", None) or [])
    windows = [capture.options[i].get("sliding_window") for i in sorted(capture.options)]
    unknown = sorted(set(kinds) - ATTENTION_LAYER_KINDS)
    if unknown:
        raise UnsupportedModel(
            f"{config.model_type}: layers of kind {', '.join(unknown)} are not supported; "
            "serve this model with another engine"
        )
    if kinds:
        told = zip(kinds, windows, strict=True)
        hidden = any(kind == "sliding_attention" and window is None for kind, window in told)
    else:
        used = getattr(config, "use_sliding_window", True)
        declared = getattr(config, "sliding_window", None) if used else None
        hidden = declared is not None and not any(windows)
    if hidden:
        raise UnsupportedModel(
            f"{config.model_type}: its sliding window is not passed on to attention; "
            "serve this model with another engine"
        )


class _Movable(NamedTuple):
    """How keys move, which kind of rotation each layer has, or else why they do not move."""

    rope: RopeSpec | None
    kinds: dict[int, int]
    detail: str


def _movable(model: nn.Module, config: Any, first: _Capture, second: _Capture) -> _Movable:
    unknown = _rope_kinds(config) - FIXED_ROPE_KINDS
    if unknown:
        named = ", ".join(repr(kind) for kind in sorted(unknown))
        return _Movable(None, {}, f"rope kind {named} is not on the allow-list")
    tables = _inverse_frequencies(model)
    if len({len(table) for table in tables}) != 1:
        return _Movable(None, {}, f"{len(tables)} rotary tables of different sizes")
    for pairing in _PAIRINGS:
        # A layer without positions moves by a rotation that turns nothing.
        known = [RopeSpec(table, pairing) for table in (*tables, torch.zeros_like(tables[0]))]
        fits = {layer: _fit(known, first, second, layer) for layer in sorted(first.keys)}
        used = list(dict.fromkeys(fits.values()))
        if None not in used:
            rope, *others = (known[at].inv_freq for at in used if at is not None)
            kinds = {layer: used.index(at) for layer, at in fits.items()}
            return _Movable(RopeSpec(rope, pairing, tuple(others)), kinds, "")
    return _Movable(None, {}, "cached keys do not move by a rotation (measured)")


def _rope_kinds(config: Any) -> set[str]:
    """The model's rope types, be there one for all layers or one for each kind of them."""
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        return {"none"}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    each = [parameters] if "rope_type" in parameters or not nested else nested
    return {str(one.get("rope_type", "default")) for one in each}


def _inverse_frequencies(model: nn.Module) -> list[Tensor]:
    found: list[Tensor] = []
    for module in model.modules():
        if "Rotary" not in type(module).__name__:
            continue
        for name, table in module.named_buffers(recurse=False):
            table = table.detach().cpu().to(torch.float64)  # tables are made on the host
            if name.endswith("inv_freq") and not any(torch.equal(table, one) for one in found):
                found.append(table)
    return found


def _fit(known: list[RopeSpec], first: _Capture, second: _Capture, layer: int) -> int | None:
    """Which rotation a layer's keys moved by: the closest, if it is close enough."""
    tolerance = _TOLERANCE.get(first.keys[layer].dtype, 3e-2)
    if _difference(second.values[layer], first.values[layer]) > tolerance:
        return None
    key, moved = first.keys[layer].cpu(), second.keys[layer].cpu()
    errors = [
        _difference(moved, rope.rotate(key, *(t[0] for t in rope.tables(torch.tensor([_DELTA])))))
        if rope.rotary_dim <= key.shape[-1]
        else float("inf")
        for rope in known
    ]
    best = min(range(len(known)), key=errors.__getitem__)
    return best if errors[best] <= tolerance else None


def _difference(left: Tensor, right: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    left, right = left.float(), right.float()
    return float((left - right).abs().max() / left.abs().max().clamp_min(1e-6))
