"""Segment attention against naive attention in float64 that rotates every key explicitly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.segment_attention import plan_attention, segment_attention
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.models.rope import RopeSpec

HEAD_DIM, ROTARY_DIM, SCALE = 16, 8, 0.35
SLOTS = 1200
ROPES = {
    pairing: RopeSpec(1e4 ** -(torch.arange(4, dtype=torch.float64) / 4), pairing)
    for pairing in ("half", "interleaved")
}


def turned(rope, x, by):
    """`x` [..., d] rotated by integers `by` [...], pair by pair, in float64."""
    result = x.double().clone()
    half = ROTARY_DIM // 2
    for i in range(half):
        left, right = (i, i + half) if rope.pairing == "half" else (2 * i, 2 * i + 1)
        angle = by.double() * rope.inv_freq[i]
        a, b = x[..., left].double(), x[..., right].double()
        result[..., left] = a * angle.cos() - b * angle.sin()
        result[..., right] = a * angle.sin() + b * angle.cos()
    return result


def naive(query, keys, values, segments, positions, rope, window):
    slots = torch.cat([torch.arange(s.slot, s.slot + s.length) for s in segments])
    offsets = torch.cat([torch.full((s.length,), s.offset) for s in segments])
    key = turned(rope, keys[slots], offsets[:, None].expand(-1, keys.shape[1]))
    value = values[slots].double()
    groups = query.shape[0] // keys.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    rows = []
    for at, position in enumerate(positions.tolist()):
        low = 0 if window is None else max(0, position - window + 1)
        scores = torch.einsum("hd,nhd->hn", query[:, at].double(), key[low : position + 1])
        weights = (scores * SCALE).softmax(-1)
        rows.append(torch.einsum("hn,nhd->hd", weights, value[low : position + 1]))
    return torch.stack(rows)


def cut(rng, length, count):
    """`length` tokens as `count` segments in random places of the store, with random offsets."""
    inner = rng.choice(np.arange(1, length), count - 1, replace=False) if count > 1 else []
    edges = [0, *sorted(int(e) for e in inner), length]
    sizes = np.diff(edges)
    order = rng.permutation(count)
    gaps = rng.integers(0, max(1, (SLOTS - length) // count), count)
    slots, at = {}, 0
    for index in order:
        at += int(gaps[index])
        slots[int(index)] = at
        at += int(sizes[index])
    offsets = rng.integers(-300, 300, count) * (rng.random(count) < 0.7)
    return [Segment(slots[i], int(sizes[i]), int(offsets[i])) for i in range(count)]


def check(rng, segments, positions, heads, rope, window, dtype=torch.float32, tolerance=1e-4):
    query_heads, kv_heads = heads
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 30)))

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    keys, values = normal(SLOTS, kv_heads, HEAD_DIM), normal(SLOTS, kv_heads, HEAD_DIM)
    query = normal(query_heads, len(positions), HEAD_DIM) * 2
    plan = plan_attention(segments, positions, rope, window=window, dtype=dtype)
    out = segment_attention(query, keys, values, plan, SCALE)
    expected = naive(query, keys, values, segments, positions, rope, window)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    slots = np.concatenate([np.arange(s.slot, s.slot + s.length) for s in segments])
    assert np.array_equal(Rows(segments, positions).slots, slots[positions])


@st.composite
def cases(draw):
    length = draw(st.integers(1, 200))
    count = draw(st.integers(1, min(length, 12)))
    kind = draw(st.sampled_from(["suffix", "last", "few", "scattered", "runs", "all"]))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    if kind == "last":
        positions = [length - 1]
    elif kind == "all":
        positions = range(length)
    elif kind == "suffix":
        positions = range(draw(st.integers(0, length - 1)), length)
    elif kind == "few":
        positions = rng.choice(length, min(length, 3), replace=False)
    elif kind == "scattered":
        positions = rng.choice(length, max(1, length // 3), replace=False)
    else:  # a long run and scattered ones
        alone = rng.choice(length, max(1, length // 8), replace=False)
        positions = {*range(length // 3, length), *alone.tolist()}
    heads = draw(st.sampled_from([(4, 4), (6, 2), (3, 1)]))
    window = draw(st.sampled_from([None, None, 1, 5, 64, 500]))
    pairing = draw(st.sampled_from(["half", "interleaved"]))
    where = np.array(sorted(int(p) for p in positions), np.int64)
    return rng, cut(rng, length, count), where, heads, ROPES[pairing], window


@given(cases())
@settings(deadline=None, max_examples=120)
def test_any_segments_and_queries(case):
    check(*case)


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("pairing", list(ROPES))
@pytest.mark.parametrize("count", [1, 8, 125])
@pytest.mark.parametrize("window", [None, 100])
def test_as_many_segments_as_a_long_run_leaves(heads, pairing, count, window):
    rng = np.random.default_rng(count)
    positions = np.concatenate([np.arange(5, 900, 31), np.arange(930, 1000)])
    check(rng, cut(rng, 1000, count), positions, heads, ROPES[pairing], window)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 30])
def test_half_precision(dtype, window):
    rng = np.random.default_rng(3)
    positions = np.concatenate([np.arange(2, 60, 7), np.arange(90, 150)])
    segments = cut(rng, 150, 6)
    tolerance = {torch.bfloat16: 6e-2, torch.float16: 8e-3}[dtype]
    check(rng, segments, positions, (6, 2), ROPES["half"], window, dtype, tolerance)


def test_keys_behind_the_last_query_are_left_alone():
    rope = ROPES["half"]
    keys = torch.full((20, 1, HEAD_DIM), float("nan"))
    keys[:6] = 1.0
    plan = plan_attention([Segment(0, 20)], np.array([3, 5]), rope)
    out = segment_attention(torch.ones(1, 2, HEAD_DIM), keys, keys, plan, SCALE)
    assert torch.equal(out, torch.ones(2, 1, HEAD_DIM))


def test_a_segment_that_moved_needs_a_rope():
    keys = torch.ones(20, 1, HEAD_DIM)
    plan = plan_attention([Segment(0, 20, 5)], np.array([19]), None)
    with pytest.raises(ValueError, match="offset 5"):
        segment_attention(torch.ones(1, 1, HEAD_DIM), keys, keys, plan, SCALE)


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("pairing", list(ROPES))
@pytest.mark.parametrize("count", [1, 2, 8, 125])
def test_a_query_alone(heads, pairing, count):
    rng = np.random.default_rng(count)
    segments = cut(rng, 1000, count)
    for last in (0, 500, 999):
        check(rng, segments, np.array([last]), heads, ROPES[pairing], None)
