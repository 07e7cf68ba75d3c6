"""Decode and extend over latents (MLA) against attention over expanded heads, in float64.

The reference knows nothing of absorbed projections or of offsets: it expands every latent into
heads, rotates each rotary part at its position, and takes a softmax.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.serving.kernels.backend import Rows  # noqa: E402
from leyline_agent.serving.kernels.segment_attend import segment_attend  # noqa: E402
from leyline_agent.serving.kernels.segment_blocks import Blocks, HeadShape  # noqa: E402
from leyline_agent.serving.kv.sequence import Segment  # noqa: E402
from leyline_agent.serving.models.rope import RopeSpec  # noqa: E402

# Rounding the query after it was absorbed counts too.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
MAGNITUDE = 1.3689  # of YaRN's cosines where mscale and mscale_all_dim differ; on stored keys
SCALE = 192**-0.5


class Model(NamedTuple):
    """The attention of one layer: its sizes, and the projections out of the latent."""

    heads: int
    latent: int
    rotary: int
    nope: int
    value: int
    pairing: str = "interleaved"

    @property
    def rope(self) -> RopeSpec:
        half = self.rotary // 2
        return RopeSpec(1e4 ** -(torch.arange(half, dtype=torch.float64) / half), self.pairing)

    def up(self) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(3)
        size = (self.heads, self.nope + self.value, self.latent)
        both = torch.randn(size, generator=rng, dtype=torch.float64) * self.latent**-0.5
        return both[:, : self.nope], both[:, self.nope :]


LITE = Model(16, 512, 64, 128, 128)
MANY_HEADS = Model(72, 512, 64, 32, 32, "half")
ODD = Model(5, 48, 16, 24, 20)


@pytest.fixture(autouse=True)
def _poison():
    """torch fills what it allocates with NaN while its algorithms are to be deterministic."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def turned(model: Model, x: Tensor, positions: Tensor) -> Tensor:
    """`x` [..., n, rotary] rotated at `positions` [n], with YaRN's magnitude."""
    angles = positions.double()[:, None] * model.rope.inv_freq
    phase = torch.polar(torch.full_like(angles, MAGNITUDE), angles)
    if model.pairing == "half":
        both = torch.complex(*x.chunk(2, -1)) * phase
        return torch.cat((both.real, both.imag), -1)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * phase).flatten(-2)


def cut(rng, lengths, base):
    """Segments in random order from slot `base` on, with gaps and offsets; and where they end."""
    slots, at = np.zeros(len(lengths), int), base
    for index in rng.permutation(len(lengths)):
        at += int(rng.integers(0, 5))
        slots[index] = at
        at += lengths[index]
    offsets = rng.integers(-700, 700, len(lengths)) * (rng.random(len(lengths)) < 0.8)
    return [Segment(*map(int, row)) for row in zip(slots, lengths, offsets, strict=True)], at


def run(model, cases, dtype, device, window=None, **how):
    """Largest error of an attention over latents, relative to the largest reference value."""
    rng, noise = np.random.default_rng(len(cases)), torch.Generator().manual_seed(1)
    up_key, up_value = model.up()
    batch, base = [], 0
    for lengths, positions in cases:
        segments, base = cut(rng, lengths, base)
        batch.append(Rows(segments, np.array(positions, np.int64)))

    def normal(*shape):
        return torch.randn(shape, generator=noise, dtype=torch.float64)

    keys = torch.full((base + 3, 1, model.rotary + model.latent), torch.nan, dtype=dtype)
    queries, expected = [], []
    for segments, positions in batch:
        slots = torch.cat([torch.arange(s.slot, s.slot + s.length) for s in segments])
        offsets = torch.cat([torch.full((s.length,), s.offset) for s in segments])
        place, where = torch.arange(len(slots)), torch.from_numpy(positions)
        latent = normal(len(slots), model.latent).to(dtype).double()
        key_pe, query_pe = normal(len(slots), model.rotary), normal(model.heads, len(where), 1)
        query_pe = query_pe * normal(model.rotary)
        query = normal(model.heads, len(where), model.nope)
        keys[slots, 0] = torch.cat((turned(model, key_pe, place - offsets), latent), -1).to(dtype)
        absorbed = (turned(model, query_pe, where), query @ up_key)
        queries.append(torch.cat(absorbed, -1).to(dtype))
        pe = turned(model, query_pe, where) @ turned(model, key_pe, place).T
        scores = (query @ (latent @ up_key.mT).mT + pe) * SCALE
        hidden = place > where[:, None]
        if window is not None:
            hidden |= place <= where[:, None] - window
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        expected.append((weights @ (latent @ up_value.mT)).transpose(0, 1))
    keys = keys.to(device)
    out = segment_attend(
        torch.cat(queries, 1).to(device),
        keys,
        keys[..., model.rotary :],
        batch,
        rope=model.rope,
        scale=SCALE,
        window=window,
        **how,
    )
    assert out.shape == (sum(len(r.positions) for r in batch), model.heads, model.latent)
    found = torch.einsum("mhl,hvl->mhv", out.double().cpu(), up_value)
    reference = torch.cat(expected)
    return float((found - reference).abs().max() / reference.abs().max())


def decode(*lengths):
    return [*lengths], [sum(lengths) - 1]


MANY = decode(*[3, 1, 7, 0, 12, 5, 2, 9] * 16)
DECODES = {
    "one": [decode(150)],
    "eight": [decode(40, 3, 200, 17, 1, 90, 5, 33), decode(29)],
    "many": [MANY, decode(1)],
}
EXTENDS = {
    "prefill": [([90], range(90))],
    "repair": [([60, 3, 1, 0, 9, 12, 40], [*range(60, 76), 90, *range(111, 125)])],
    "batch": [([100, 30], range(115, 130)), decode(20, 50), ([7], [0, 3])],
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", DECODES)
def test_decode(device, case, dtype):
    assert run(LITE, DECODES[case], dtype, device) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", EXTENDS)
def test_extend(device, case, dtype):
    assert run(LITE, EXTENDS[case], dtype, device) <= TOLERANCE[dtype]


@pytest.mark.parametrize("case", [*DECODES, *EXTENDS])
def test_sizes_that_are_no_powers_of_two(device, case):
    assert run(ODD, (DECODES | EXTENDS)[case], torch.float32, device) <= 1e-5


def test_more_heads_than_a_program_takes(device):
    """As the 128 of DeepSeek-V3, which share one key head: a program has some of them."""
    assert run(MANY_HEADS, [decode(60, 1, 9)], torch.bfloat16, device) <= 1e-2
    blocks = Blocks(queries=2, heads=3, rows=16, keys=32)
    assert run(ODD, EXTENDS["batch"], torch.float32, device, blocks=blocks) <= 1e-5


@pytest.mark.parametrize("case", [[MANY, decode(40, 80)], [MANY, ([40, 80], [60, 100, 119])]])
def test_in_a_window(device, case):
    error = run(LITE, case, torch.float32, device, window=33)
    assert error <= 1e-5


def test_the_latent_is_read_once(device):
    """The values are told to be the keys' own memory, by address and stride."""
    keys = torch.zeros(9, 1, 576, device=device)
    query = torch.zeros(16, 1, 576, device=device)
    assert HeadShape.of(query, keys, keys[..., 64:]) == HeadShape(16, 1, 576, 512, latent=True)
    assert not HeadShape.of(query, keys, keys[..., 64:].clone()).latent
