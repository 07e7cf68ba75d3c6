"""Partial attention against plain arithmetic, and merging against attending to all at once."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.serving.kernels.partial import (
    merge_into,
    partial_attention,
    partial_attention_reference,
)

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def naive(query, key, value, scale, hidden=None):
    """Attention and its log-sum-exp in float64, a query at a time."""
    out = torch.zeros(*query.shape[:-1], value.shape[-1], dtype=torch.float64)
    lse = torch.zeros(query.shape[:-1], dtype=torch.float64)
    for at in range(query.shape[2]):
        seen = [n for n in range(key.shape[2]) if hidden is None or not hidden[at, n]]
        scores = (query[:, :, at, None].double() * key[:, :, seen].double()).sum(-1) * scale
        lse[:, :, at] = scores.logsumexp(-1)
        weights = scores.softmax(-1)
        out[:, :, at] = (weights[..., None] * value[:, :, seen].double()).sum(2)
    return out, lse


def make(m, n, *, d=16, d_v=None, seed=0, dtype=torch.float32, heads=(2, 3)):
    rng = torch.Generator().manual_seed(seed)
    shapes = [(*heads, m, d), (*heads, n, d), (*heads, n, d_v or d)]
    return [torch.randn(shape, generator=rng).to(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 65), (7, 7), (33, 5), (64, 130)])
@pytest.mark.parametrize("compute", [partial_attention, partial_attention_reference])
def test_every_key_visible(compute, m, n, dtype):
    query, key, value = make(m, n, dtype=dtype)
    out, lse = compute(query, key, value, scale=0.3)
    expected, expected_lse = naive(query, key, value, 0.3)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    assert lse.dtype == torch.float32
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("compute", [partial_attention, partial_attention_reference])
def test_causal(compute):
    query, key, value = make(37, 37)
    hidden = torch.ones(37, 37, dtype=torch.bool).triu(1)
    out, lse = compute(query, key, value, scale=0.25, causal=True)
    expected, expected_lse = naive(query, key, value, 0.25, hidden)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("compute", [partial_attention, partial_attention_reference])
def test_masked(compute):
    query, key, value = make(9, 20)
    hidden = torch.rand(9, 20, generator=torch.Generator().manual_seed(1)) < 0.6
    hidden[:, 3] = False
    mask = torch.zeros(9, 20).masked_fill(hidden, -math.inf)
    out, lse = compute(query, key, value, scale=0.25, mask=mask)
    expected, expected_lse = naive(query, key, value, 0.25, hidden)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("d_v", [16, 40])
def test_values_of_another_width_than_keys(d_v):
    query, key, value = make(5, 8, d=24, d_v=d_v)
    out, _ = partial_attention(query, key, value, scale=0.2)
    torch.testing.assert_close(out.double(), naive(query, key, value, 0.2)[0], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_values_that_are_the_last_entries_of_the_keys(shared):
    """As MLA stores them: one latent a token, which all heads may share."""
    query, key, _ = make(9, 9, d=24)
    key = key[:, :1].expand(-1, 3, -1, -1) if shared else key
    out, lse = partial_attention(query, key, key[..., 8:], scale=0.2, causal=True)
    hidden = torch.ones(9, 9, dtype=torch.bool).triu(1)
    expected, expected_lse = naive(query, key, key[..., 8:], 0.2, hidden)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(lse.double(), expected_lse, atol=2e-5, rtol=2e-5)


def test_values_that_begin_where_the_keys_end_but_lie_otherwise():
    query, key, _ = make(5, 8, d=24)
    other = key[..., 8:].expand(2, 3, 8, 16)[:, :1].expand(-1, 3, -1, -1)
    out, _ = partial_attention(query, key, other, scale=0.2)
    torch.testing.assert_close(out.double(), naive(query, key, other, 0.2)[0], atol=2e-5, rtol=2e-5)


def test_keys_shared_by_several_query_heads_need_no_copy():
    query, key, value = make(5, 8)
    shared = (key[:, :1].expand(-1, 3, -1, -1), value[:, :1].expand(-1, 3, -1, -1))
    out, _ = partial_attention(query, *shared, scale=0.2)
    torch.testing.assert_close(out.double(), naive(query, *shared, 0.2)[0], atol=2e-5, rtol=2e-5)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 1 << 20))
@settings(deadline=None, max_examples=40)
def test_merging_the_parts_in_any_order_is_attending_to_all(sizes, seed):
    query, key, value = make(4, sum(sizes), seed=seed)
    key *= 3  # some parts carry nearly all the weight
    parts = list(zip(key.split(sizes, 2), value.split(sizes, 2), strict=True))
    order = torch.randperm(len(parts), generator=torch.Generator().manual_seed(seed))
    out = torch.full((2, 3, 4, 16), 0.0)
    lse = torch.full((2, 3, 4), -math.inf)
    for index in order.tolist():
        merge_into(out, lse, *partial_attention(query, *parts[index], scale=1.0))
    expected, expected_lse = naive(query, key, value, 1.0)
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lse.double(), expected_lse, atol=1e-4, rtol=1e-4)


def test_merging_scores_far_apart_stays_finite():
    out, lse = torch.ones(1, 4), torch.tensor([300.0])
    merge_into(out, lse, torch.full((1, 4), 7.0), torch.tensor([-300.0]))
    assert torch.equal(out, torch.ones(1, 4))
    assert lse.item() == 300.0
