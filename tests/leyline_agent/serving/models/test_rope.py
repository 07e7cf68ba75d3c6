"""Rotations: tables, pairings, and what composes with what."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.serving.models.rope import RopeSpec

FREQUENCIES = 1e4 ** -(torch.arange(8, dtype=torch.float64) / 8)


@pytest.fixture(params=["half", "interleaved"])
def rope(request):
    return RopeSpec(FREQUENCIES, request.param)


def rotate(rope, x, by):
    cos, sin = rope.tables(torch.tensor([by]))
    return rope.rotate(x, cos[0], sin[0])


def as_complex(rope, x):
    """The pairs as complex numbers, which a rotation multiplies by exp(i angle)."""
    x = x.double()
    if rope.pairing == "half":
        return torch.complex(x[..., :8], x[..., 8:16])
    return torch.complex(x[..., 0:16:2], x[..., 1:16:2])


@pytest.mark.parametrize("by", [0, 1, -1, 37, -1234, 100_000])
def test_a_rotation_multiplies_pairs_by_a_phase(rope, by):
    x = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1))
    moved = rotate(rope, x, by)
    phase = torch.polar(torch.ones(8, dtype=torch.float64), by * FREQUENCIES)
    torch.testing.assert_close(as_complex(rope, moved), as_complex(rope, x) * phase)
    assert torch.equal(moved[..., 16:], x[..., 16:])  # dimensions that carry no position


def test_a_rotation_by_nothing_changes_nothing(rope):
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    assert torch.equal(rotate(rope, x, 0), x)


@given(left=st.integers(-5000, 5000), right=st.integers(-5000, 5000))
def test_rotations_add_up(left, right):
    for pairing in ("half", "interleaved"):
        rope = RopeSpec(FREQUENCIES, pairing)
        x = torch.randn(16, generator=torch.Generator().manual_seed(1))
        twice = rotate(rope, rotate(rope, x, left), right)
        torch.testing.assert_close(twice, rotate(rope, x, left + right), atol=1e-5, rtol=1e-5)


def test_the_given_vector_stays_as_it_is(rope):
    x = torch.ones(2, 16)
    rotate(rope, x, 9)
    assert torch.equal(x, torch.ones(2, 16))


def test_many_deltas_at_once(rope):
    x = torch.randn(3, 2, 16, generator=torch.Generator().manual_seed(1))
    deltas = [5, -9, 0]
    cos, sin = rope.tables(torch.tensor(deltas))
    moved = rope.rotate(x, cos[:, None], sin[:, None])
    for index, by in enumerate(deltas):
        assert torch.equal(moved[index], rotate(rope, x[index], by))
