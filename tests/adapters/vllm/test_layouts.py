"""Layouts learned by writing patterns: whatever the packing, what was written is read."""

from __future__ import annotations

import pytest
import torch
from vllm_layers import (
    BLOCK,
    DIM,
    HEADS,
    amx,
    forgetful,
    head_major,
    latents,
    lossy,
    rows,
    shuffled,
    token_major,
    vec,
)

from leyline_adapters.vllm.layouts import Shape, UnknownLayout, learn

SHAPE = Shape(HEADS, DIM, HEADS, DIM)
PACKED = [
    (amx, head_major, True),
    (vec, head_major, True),
    (rows, head_major, True),
    (rows, token_major, True),
    (shuffled, head_major, False),
]


def filled(cache, write, shape, seed=0):
    """Keys and values of every slot, written in another order."""
    made = torch.Generator().manual_seed(seed)
    count = len(cache) * BLOCK
    keys = torch.randn(count, *shape[:2], generator=made).to(cache.dtype)
    values = torch.randn(count, *shape[2:], generator=made).to(cache.dtype)
    order = torch.randperm(count, generator=made)
    write(cache, keys[order], values[order], order)
    return keys, values


@pytest.mark.parametrize(("write", "cache_of", "strided"), PACKED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_is_written_is_read(write, cache_of, strided, dtype) -> None:
    cache = cache_of(5, dtype)
    layout = learn(cache, BLOCK, SHAPE, write)
    assert not cache.any()
    assert bool(layout.keys.sizes) == strided
    keys, values = filled(cache, write, SHAPE)
    picked = torch.tensor([3, 1, 4])
    at = (picked[:, None] * BLOCK + torch.arange(BLOCK)).view(-1)
    found = layout.read(cache, picked)
    assert torch.equal(found[0], keys[at])
    assert torch.equal(found[1], values[at])


def test_amx_keys_are_read_in_pairs() -> None:
    layout = learn(head_major(2, torch.bfloat16), BLOCK, SHAPE, amx)
    assert layout.keys.pairs
    assert not layout.values.pairs


def test_latents() -> None:
    shape = Shape(1, 8, 1, 48)
    cache = torch.zeros(3, BLOCK, 56, dtype=torch.bfloat16)
    layout = learn(cache, BLOCK, shape, latents)
    keys, values = filled(cache, latents, shape)
    found = layout.read(cache, torch.arange(3))
    assert torch.equal(found[0], keys)
    assert torch.equal(found[1], values)


def test_one_head_whose_values_lie_as_they_are_read() -> None:
    """A rank's only head: no copy is needed within a block, but blocks do not touch."""

    def halves(cache, keys, values, slots) -> None:
        for row, slot in enumerate(slots.tolist()):
            block, at = divmod(slot, BLOCK)
            packed = cache[block].view(2, BLOCK, DIM)
            packed[0, at], packed[1, at] = keys[row, 0], values[row, 0]

    shape = Shape(1, DIM, 1, DIM)
    cache = torch.zeros(4, 1, BLOCK, 2 * DIM, dtype=torch.bfloat16)
    layout = learn(cache, BLOCK, shape, halves)
    keys, values = filled(cache, halves, shape)
    found = layout.read(cache, torch.arange(4))
    assert torch.equal(found[0], keys)
    assert torch.equal(found[1], values)


@pytest.mark.parametrize("write", [lossy, forgetful])
def test_what_is_not_found_again_is_refused(write) -> None:
    with pytest.raises(UnknownLayout):
        learn(head_major(2, torch.bfloat16), BLOCK, SHAPE, write)


@pytest.mark.parametrize("tokens", [BLOCK // 2, BLOCK + 1])
def test_a_block_of_another_size_is_refused_before_it_is_written(tokens) -> None:
    def never(*given) -> None:
        raise AssertionError("written")

    with pytest.raises(UnknownLayout, match=f"{BLOCK} tokens have"):
        learn(torch.zeros(2, HEADS, tokens, 2 * DIM), BLOCK, SHAPE, never)
