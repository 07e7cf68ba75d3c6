"""How heads are cut: all of them, and every dimension, for any model."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.serving.kernels.segment_blocks import (  # noqa: E402
    HeadShape,
    choose_blocks,
    constants,
    tiling_of,
)


@pytest.mark.parametrize("group", [1, 3, 7, 8, 16, 71, 128])
@pytest.mark.parametrize(
    ("dim", "value_dim"), [(16, 16), (80, 80), (96, 64), (192, 128), (576, 512)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("decode", [True, False])
def test_blocks_hold_every_head_and_dimension(group, dim, value_dim, dtype, decode):
    shape = HeadShape(2 * group, 2, dim, value_dim, latent=dim == 576)
    blocks = choose_blocks(shape, dtype, decode=decode)
    fixed = constants(shape, blocks, 16, interleaved=False)
    assert blocks.rows >= blocks.queries * blocks.heads
    assert blocks.queries == 1 or not decode
    assert fixed["BLOCK_A"] + fixed["BLOCK_B"] >= dim
    assert fixed["BLOCK_V"] >= value_dim
    powers = [blocks.rows, blocks.keys, *(fixed[f"BLOCK_{name}"] for name in "ABV")]
    assert all(
        size == triton.next_power_of_2(size) and (size >= 16 or size == 0) for size in powers
    )
    assert fixed["SHARED"] == (dim == 576)
    # Head chunks of a key head are programs of their own, and together cover the group.
    programs = 1000
    assert tiling_of(shape, blocks, programs).items * 2 * -(-group // blocks.heads) <= programs


def test_latents_with_a_rotated_part_that_is_no_power_of_two_are_read_as_any_values():
    shape = HeadShape(4, 1, 120, 80, latent=True)
    blocks = choose_blocks(shape, torch.float32, decode=True)
    assert not constants(shape, blocks, 40, interleaved=True)["SHARED"]
