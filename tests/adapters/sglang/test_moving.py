from __future__ import annotations

import pytest
import torch

from leyline_adapters.sglang import moving
from leyline_adapters.sglang.moving import move, same_rotation
from leyline_agent.serving.models.rope import Pairing, RopeSpec

DIM, HEADS, SLOTS = 8, 2, 64


def rope(pairing: Pairing = "half", dim: int = DIM) -> RopeSpec:
    return RopeSpec(100.0 ** -(torch.arange(0, dim, 2).double() / dim), pairing)


def turned(x: torch.Tensor, positions: torch.Tensor, spec: RopeSpec) -> torch.Tensor:
    """Rotated by complex multiplication, in float64: another way to the same."""
    half = spec.rotary_dim // 2
    angles = positions.double()[:, None, None] * spec.inv_freq
    pairs = x[..., : 2 * half].double()
    if spec.pairing == "half":
        pairs = torch.stack((pairs[..., :half], pairs[..., half:]), -1)
    else:
        pairs = pairs.unflatten(-1, (half, 2))
    spun = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    both = torch.view_as_real(spun)
    flat = (
        torch.cat((both[..., 0], both[..., 1]), -1) if spec.pairing == "half" else both.flatten(-2)
    )
    return torch.cat((flat, x[..., 2 * half :].double()), -1)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("rotary", [DIM, DIM // 2], ids=["whole", "partial"])
@pytest.mark.parametrize("rows", [1 << 14, 3], ids=["at once", "in parts"])
def test_keys_are_turned_and_values_are_not(
    pairing: Pairing, rotary: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "ROWS", rows)
    spec = rope(pairing, rotary)
    torch.manual_seed(0)
    raw = [torch.randn(10, HEADS, DIM) for _ in range(3)]
    places = torch.arange(20, 30)
    source, target = torch.randperm(30)[:10], 30 + torch.randperm(30)[:10]
    layers = []
    for layer in raw:
        keys, values = torch.full((2, SLOTS, HEADS, DIM), torch.nan).unbind()
        keys[source] = turned(layer, places, spec).float()
        values[source] = layer
        layers.append((keys, values))
    deltas = [0, 0, -3, -3, -3, -7, -7, 5, 5, 5]

    move(layers, source, target, deltas, spec)

    for (keys, values), layer in zip(layers, raw, strict=True):
        expected = turned(layer, places + torch.tensor(deltas), spec).float()
        torch.testing.assert_close(keys[target], expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(keys[source][:2], keys[target][:2])  # not moved: copied bit by bit
        assert torch.equal(values[target], layer)
        assert keys.isnan().any(-1).any(-1).sum() == SLOTS - 20


def table(spec: RopeSpec, length: int, scale: float = 1.0, factor: float = 1.0) -> torch.Tensor:
    angles = torch.arange(length).double()[:, None] * spec.inv_freq / factor
    return torch.cat((angles.cos(), angles.sin()), -1) * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_table_of_the_same_frequencies_is_known(dtype: torch.dtype) -> None:
    assert same_rotation(table(rope(), 2048).to(dtype), rope())


@pytest.mark.parametrize(
    "other",
    [table(rope(), 64, scale=1.05), table(rope(), 64, factor=2.0), table(rope(dim=4), 64)],
    ids=["an attention factor", "scaled positions", "another width"],
)
def test_another_table_is_not(other: torch.Tensor) -> None:
    assert not same_rotation(other, rope())
