"""The worker side on layers of our own: rows land where they belong, keys turned as they must."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm_layers import (
    BLOCK,
    DIM,
    RotaryEmbedding,
    amx,
    head_major,
    mla_module,
    module,
    rows,
    token_major,
)

from leyline_adapters.vllm.refusals import Refusal
from leyline_adapters.vllm.rotations import rotation
from leyline_adapters.vllm.transfer import Copy, Load
from leyline_adapters.vllm.working import WorkerSide
from leyline_agent.receipt import Reason


class Worker(WorkerSide):
    """A worker whose model's rotary modules are given."""

    def __init__(self, modules: dict[str, Any], rotary: list[Any]) -> None:
        context = SimpleNamespace(static_forward_context=modules)
        cache = SimpleNamespace(block_size=BLOCK)
        super().__init__(SimpleNamespace(compilation_config=context, cache_config=cache))
        self.rotary = rotary

    def rotary_modules(self) -> list[Any]:
        return self.rotary


def worker(
    write=amx, caches=None, rotary=None, layers: int = 2, blocks: int = 10
) -> tuple[Worker, list[torch.Tensor]]:
    """A worker of some layers whose caches are filled with noise."""
    torch.manual_seed(3)
    made = caches or [head_major(blocks, torch.bfloat16) for _ in range(layers)]
    names = [f"layer.{i}" for i in range(len(made))]
    side = Worker(dict.fromkeys(names, module(write)), rotary or [RotaryEmbedding(DIM)])
    side.register(dict(zip(names, made, strict=True)))
    for cache in made:
        cache.copy_(torch.randn(cache.shape))
    return side, made


def read(side: Worker, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All keys and values of a layer, by slot."""
    layer = side._layers[number]
    keys, values = layer.layout.read(layer.cache, torch.arange(len(layer.cache)))
    return keys.double(), values


def turned(keys: torch.Tensor, shifts: torch.Tensor, *, neox: bool, dim: int = DIM) -> torch.Tensor:
    """Keys [n, heads, d] rotated by complex numbers, in float64."""
    angles = shifts.double()[:, None] / 1e4 ** (torch.arange(0, dim, 2).double() / dim)
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    part = keys[..., :dim]
    pairs = part.unflatten(-1, (2, -1)).transpose(-1, -2) if neox else part.unflatten(-1, (-1, 2))
    found = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * turn)
    found = found.transpose(-1, -2).flatten(-2) if neox else found.flatten(-2)
    return torch.cat((found, keys[..., dim:]), -1)


copies = st.lists(
    st.tuples(st.integers(0, 3 * BLOCK - 1), st.integers(1, 70), st.integers(-500, 500)),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(runs=copies, at=st.integers(0, 2), packed=st.booleans())
def test_rows_are_copied_and_keys_turned(runs, at, packed) -> None:
    """Any runs of a source's four blocks, from a block's border on in the request's."""
    side, _ = worker(amx) if packed else worker(rows, [token_major(10, torch.bfloat16)] * 1)
    before = [read(side, i) for i in range(len(side._layers))]
    table, position, wanted, pieces = (9, 2, 7, 4, 5, 6), at * BLOCK, [], []
    source = (8, 1, 3, 0)
    for start, length, shift in runs:
        length = min(length, 4 * BLOCK - start, len(table) * BLOCK - position)
        if length < 1:
            continue
        first, last = start // BLOCK, (start + length - 1) // BLOCK
        pieces.append(Copy(source[first : last + 1], start % BLOCK, position, length, shift))
        for i in range(length):
            slot = source[(start + i) // BLOCK] * BLOCK + (start + i) % BLOCK
            wanted.append((slot, position + i, shift))
        position += length
    side.run([Load("r", table, tuple(pieces))])
    assert side.take_report()[1] == {}
    origin = torch.tensor([slot for slot, _, _ in wanted])
    target = torch.tensor([table[p // BLOCK] * BLOCK + p % BLOCK for _, p, _ in wanted])
    shifts = torch.tensor([shift for _, _, shift in wanted])
    for number, (keys, values) in enumerate(before):
        now, moved_values = read(side, number)
        exact = turned(keys[origin], shifts, neox=True)
        limit = exact.abs().clamp_min(0.1) * 2**-7  # one rounding of a pair to bfloat16
        assert ((now[target] - exact).abs() <= limit).all()
        assert torch.equal(moved_values[target], values[origin])
        rest = torch.ones(len(keys), dtype=torch.bool)
        rest[target] = False
        assert torch.equal(now[rest], keys[rest])


@pytest.mark.parametrize(("dim", "neox"), [(DIM, False), (DIM // 2, True), (DIM // 2, False)])
def test_interleaved_and_partial_rotations(dim: int, neox: bool) -> None:
    side, _ = worker(rotary=[RotaryEmbedding(dim, neox=neox)])
    keys, _ = read(side, 0)
    side.run([Load("r", (9,), (Copy((2,), 0, 0, BLOCK, -77),))])
    now, _ = read(side, 0)
    exact = turned(keys[2 * BLOCK : 3 * BLOCK], torch.full((BLOCK,), -77), neox=neox, dim=dim)
    torch.testing.assert_close(now[9 * BLOCK :], exact, atol=0.02, rtol=0.01)


def test_latents_turn_their_rotary_part_alone() -> None:
    cache = torch.zeros(4, BLOCK, 56, dtype=torch.bfloat16)
    side = Worker({"l": mla_module(48, 8)}, [RotaryEmbedding(8, neox=False)])
    side.register({"l": cache})
    assert side.refusal is None
    cache.copy_(torch.randn(cache.shape))
    before = cache.clone()
    side.run([Load("r", (3,), (Copy((1,), 4, 0, 20, 55),))])
    assert torch.equal(cache[3, :20, :48], before[1, 4:24, :48])
    exact = turned(before[1, 4:24, None, 48:].double(), torch.full((20,), 55), neox=False, dim=8)
    torch.testing.assert_close(cache[3, :20, 48:].double(), exact[:, 0], atol=0.03, rtol=0.01)


def test_an_unmoved_copy_is_bit_for_bit() -> None:
    side, (cache, _) = worker()
    side.run([Load("r", (9,), (Copy((2,), 0, 0, BLOCK, 0),))])
    assert torch.equal(cache[9], cache[2])


def test_a_layer_that_shares_a_cache_is_copied_once() -> None:
    cache = head_major(4, torch.bfloat16)
    side, _ = worker(caches=[cache, cache])
    assert len(side._layers) == 1


def test_a_load_that_fails_is_reported_and_the_next_one_runs(monkeypatch) -> None:
    side, (cache, _) = worker()
    copy_layer = Worker.copy_layer

    def failing(self, number, rows):
        if number == 1 and int(rows.slots[0]) == 9 * BLOCK:
            raise RuntimeError("no more memory")
        copy_layer(self, number, rows)

    monkeypatch.setattr(Worker, "copy_layer", failing)
    wrong = Load("wrong", (5, 9, 8), (Copy((2,), 0, BLOCK, BLOCK, 3),))
    right = Load("right", (7,), (Copy((2,), 0, 0, BLOCK, 0),))
    side.run([wrong, right])
    assert side.take_finished() == {"wrong", "right"}
    assert side.take_invalid() == {9, 8}
    times, errors = side.take_report()
    assert set(times) == {"wrong", "right"}
    assert errors == {"wrong": "RuntimeError: no more memory"}
    assert torch.equal(cache[7], cache[2])
    assert (side.take_finished(), side.take_invalid()) == (set(), set())


def test_a_cache_that_cannot_be_read_is_refused(caplog) -> None:
    side, _ = worker(write=lambda cache, keys, values, slots: None)
    assert side.refusal is not None
    assert side.refusal.reason is Reason.LAYER_KIND
    assert "nothing will be spliced" in caplog.text
    side.run([Load("r", (3,), (Copy((1,), 0, 0, 4, 0),))])
    assert side.take_invalid() == {3}


class DynamicNTKScalingRotaryEmbedding(RotaryEmbedding):
    """One that is not on the list."""


def off_its_table() -> RotaryEmbedding:
    made = RotaryEmbedding(DIM)
    made.base = 500.0
    return made


@pytest.mark.parametrize(
    ("rotary", "said"),
    [
        ([], "no rotary positions"),
        ([DynamicNTKScalingRotaryEmbedding(DIM)], "not on the allow-list"),
        ([RotaryEmbedding(DIM), RotaryEmbedding(DIM, base=500.0)], "2 different rotations"),
        ([RotaryEmbedding(2 * DIM)], f"{2 * DIM} dimensions are rotated"),
        ([off_its_table()], "not the one its code computes"),
    ],
)
def test_rotations_that_are_refused(rotary, said) -> None:
    found = rotation(rotary, DIM)
    assert isinstance(found, Refusal)
    assert found.reason is Reason.ROPE_KIND
    assert said in found.detail


def test_a_scaled_table_is_the_same_rotation() -> None:
    """YaRN's magnitude is on the keys already."""
    made = RotaryEmbedding(DIM)
    made.cos_sin_cache = made.cos_sin_cache * 1.3
    found = rotation([made, RotaryEmbedding(DIM)], DIM)
    assert not isinstance(found, Refusal)
    assert found.pairing == "half"
