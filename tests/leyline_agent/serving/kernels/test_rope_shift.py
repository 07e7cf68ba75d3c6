"""Rope shift against float64; rows that are not asked for stay as they were, bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.rope_shift import plan_shift, rope_shift, rope_shift_reference
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.kv.working_copy import WorkingCopy
from leyline_agent.serving.models.probe import KVShape
from leyline_agent.serving.models.rope import RopeSpec

pytest.importorskip("triton", reason="Triton runs on Linux only")

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
# head size, rotary dimensions
SIZES = [(64, 64), (128, 128), (256, 256), (80, 32), (96, 96), (96, 24), (112, 112), (576, 64)]


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    monkeypatch.setenv("LEYLINE_KERNELS", "triton")


def make_rope(rotary, pairing="half", theta=1e4):
    half = rotary // 2
    return RopeSpec(theta ** -(torch.arange(half, dtype=torch.float64) / half), pairing)


def make_keys(rows, heads, dim, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((rows, heads, dim), generator=generator).to(dtype).to(device)


def exact(keys, rope, deltas):
    """`keys` [n, heads, d] turned by `deltas` [n], pair by pair, in float64; the pairs' lengths."""
    x = keys.double().cpu()
    half = rope.rotary_dim // 2
    left, right = torch.arange(half), torch.arange(half) + half
    if rope.pairing == "interleaved":
        left, right = 2 * torch.arange(half), 2 * torch.arange(half) + 1
    pairs = torch.complex(x[..., left], x[..., right])
    angles = torch.from_numpy(deltas).double()[:, None, None] * rope.inv_freq
    turned, length = pairs * torch.polar(torch.ones_like(angles), angles), x.abs()
    x[..., left], x[..., right] = turned.real, turned.imag
    length[..., left] = length[..., right] = turned.abs()
    return x, length


def ulps(got, expected, length):
    """The largest error in units of the last place at the rotated pair's length."""
    eps = torch.finfo(got.dtype).eps
    unit = eps * torch.exp2(torch.floor(torch.log2(length.clamp(min=1e-30))))
    return ((got.double().cpu() - expected).abs() / unit).max().item()


def same_bits(left, right):
    kind = BITS[left.dtype]
    return torch.equal(left.contiguous().view(kind), right.contiguous().view(kind))


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "rotary"), SIZES)
def test_gathered_rotated_and_scattered(device, dtype, dim, rotary, pairing):
    rng = np.random.default_rng(dim)
    keys = make_keys(60, 3, dim, dtype, device)
    out = torch.full((50, 3, dim), torch.nan, dtype=dtype, device=device)
    source, target = rng.choice(60, 41), rng.permutation(50)[:41]
    deltas = rng.choice([0, -1, 7, -4000, 131072], 41)
    rope = make_rope(rotary, pairing)
    rope_shift(keys, out, plan_shift(source, target, deltas, rope, keys.dtype, device))
    expected, length = exact(keys[source], rope, deltas)
    assert ulps(out[target], expected, length) <= 1
    still = deltas == 0
    assert same_bits(out[target[still]], keys[source[still]])
    assert same_bits(out[target][..., rotary:], keys[source][..., rotary:])
    assert out[np.setdiff1d(np.arange(50), target)].isnan().all()


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_the_reference(device, dtype, pairing):
    """To the ulp of a fused product and sum."""
    rng = np.random.default_rng(1)
    keys = make_keys(300, 2, 64, dtype, device)
    shift = plan_shift(
        rng.permutation(300), None, rng.integers(-9, 9, 300), make_rope(64, pairing), dtype, device
    )
    out, reference = torch.full_like(keys, torch.nan), torch.full_like(keys, torch.nan)
    rope_shift(keys, out, shift)
    rope_shift_reference(keys, reference, shift)
    length = torch.full(out.shape, 4.0, dtype=torch.float64)
    assert ulps(out, reference.double().cpu(), length) <= 1
    assert (out == reference).double().mean() > 0.999


@pytest.mark.parametrize("count", [1, 8, 125, 1000])
def test_deltas_of_many_segments(device, count):
    rng = np.random.default_rng(count)
    deltas = np.repeat(rng.permutation(np.arange(-count * 3, 0, 3)), 1 + 400 // count)
    keys, rope = make_keys(len(deltas), 1, 64, torch.bfloat16, device), make_rope(64)
    out = torch.full_like(keys, torch.nan)
    shift = plan_shift(np.arange(len(deltas)), None, deltas, rope, keys.dtype, device)
    assert shift.cos.shape == (count, 64)
    rope_shift(keys, out, shift)
    assert ulps(out, *exact(keys, rope, deltas)) <= 1


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize(("dim", "rotary"), [(64, 64), (576, 64), (80, 80)])
def test_in_place(device, dim, rotary, pairing):
    rng = np.random.default_rng(2)
    keys, rope = make_keys(90, 2, dim, torch.bfloat16, device), make_rope(rotary, pairing)
    before, rows = keys.clone(), rng.permutation(90)[:70]
    deltas = rng.integers(-500, 500, 70)
    shift = plan_shift(rows, rows.copy(), deltas, rope, keys.dtype, device)
    assert shift.in_place
    assert not shift.overlaps
    rope_shift(keys, keys, shift)
    assert ulps(keys[rows], *exact(before[rows], rope, deltas)) <= 1
    others = np.setdiff1d(np.arange(90), rows)
    assert same_bits(keys[others], before[others])
    assert same_bits(keys[..., rotary:], before[..., rotary:])


def moves():
    """Rows moved within 40: any sources, targets all different."""
    rows = st.integers(0, 39)
    return st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            st.lists(rows, min_size=n, max_size=n),
            st.lists(rows, min_size=n, max_size=n, unique=True),
            st.lists(st.integers(-1 << 17, 1 << 17), min_size=n, max_size=n),
        )
    )


@given(moves(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_moves_within_one_tensor(move, half):
    """Sources and targets overlap in every way, a row read twice and written once included."""
    check_move(*(np.array(part, np.int64) for part in move), half=half, device="cpu")


@pytest.mark.parametrize("by", [-300, -1, 1, 300])
def test_a_long_move_over_itself(device, by):
    """More rows than one program has, each overwritten by another program's."""
    source = np.arange(300, 900)
    check_move(source, source + by, np.full(600, by), device=device, rows=1200)


def check_move(source, target, deltas, *, device, half=True, rows=40):
    rope = make_rope(16, "half" if half else "interleaved")
    keys = make_keys(rows, 2, 24, torch.float16, device)
    before = keys.clone()
    with np.errstate(all="ignore"):
        rope_shift(keys, keys, plan_shift(source, target, deltas, rope, keys.dtype, device))
    assert ulps(keys[target], *exact(before[source], rope, deltas)) <= 1
    others = np.setdiff1d(np.arange(rows), target)
    assert same_bits(keys[others], before[others])


def test_two_views_of_one_memory(device):
    """Row i of the output is row i + 5 of the keys: the row numbers alone do not tell."""
    memory, rope = make_keys(105, 2, 32, torch.float16, device), make_rope(32)
    before, rows, deltas = memory.clone(), np.arange(100), np.full(100, 5)
    rope_shift(memory[:100], memory[5:], plan_shift(rows, rows, deltas, rope, memory.dtype, device))
    assert ulps(memory[5:], *exact(before[:100], rope, deltas)) <= 1
    assert same_bits(memory[:5], before[:5])


@pytest.mark.parametrize("rows", [0, 1])
def test_none_and_one(device, rows):
    keys, out = (make_keys(3, 2, 32, torch.float32, device, seed) for seed in (0, 1))
    before, deltas, rope = out.clone(), np.full(rows, 11), make_rope(32)
    rope_shift(keys, out, plan_shift(np.arange(rows), None, deltas, rope, keys.dtype, device))
    assert same_bits(out[rows:], before[rows:])
    if rows:
        assert ulps(out[:1], *exact(keys[:1], rope, deltas)) <= 1


def test_strides_of_a_cut_out(device):
    """Heads out of a wider tensor, as expanded MLA keys and fused projections lie."""
    wide, rope = make_keys(20, 6, 100, torch.float32, device), make_rope(32)
    keys, rows, deltas = wide[:, 1:4, 8:72], np.arange(20), np.arange(20)
    out = torch.full((64, 20), torch.nan, device=device)
    out = out.expand(3, 64, 20).clone().permute(2, 0, 1).contiguous()
    rope_shift(keys, out, plan_shift(rows, None, deltas, rope, keys.dtype, device))
    assert ulps(out, *exact(keys, rope, deltas)) <= 1


def test_keys_of_more_than_2_to_the_31_elements(device):
    """Memory is reserved and, but for three rows each, never touched."""
    last, rope = 2**31 // 64, make_rope(64)
    keys = torch.empty((last + 40, 1, 64), dtype=torch.bfloat16, device=device)
    source, target = np.array([last + 9, 2, last - 1]), np.array([last - 1, last + 30, 7])
    keys[source] = make_keys(3, 1, 64, torch.bfloat16, device)
    before, deltas = keys[source], np.array([4, -5, 6])
    rope_shift(keys, keys, plan_shift(source, target, deltas, rope, keys.dtype, device))
    assert ulps(keys[target], *exact(before, rope, deltas)) <= 1
    out = torch.empty_like(keys)
    rope_shift(keys, out, plan_shift(target, source, -deltas, rope, keys.dtype, device))
    assert ulps(out[source], *exact(keys[target], rope, -deltas)) <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": torch.zeros(9, 2, 32, dtype=torch.float16)}, "out is torch.float16 and keys is"),
        ({"keys": torch.zeros(9, 2, 32, dtype=torch.float64)}, "keys is torch.float64; the kern"),
        ({"keys": torch.zeros(9, 32, 2).mT}, "the last dimension of keys is not contiguous"),
        ({"out": torch.zeros(9, 3, 32)}, r"out \(9, 3, 32\) do not fit"),
        ({"keys": torch.zeros(8, 2, 32)}, "keys has 8 rows; row 8 is used"),
        ({"out": torch.zeros(5, 2, 32)}, "out has 5 rows; row 8 is used"),
        ({"rope": make_rope(64)}, "keys have 32 dimensions; the rope rotates 64"),
        ({"keys": torch.zeros(9, 2, 32, device="meta")}, "out is cpu and keys is meta"),
        (
            {n: torch.zeros(9, 2, 32, dtype=torch.float16) for n in ("keys", "out")},
            "the shift was planned for float32 on cpu",
        ),
    ],
)
def test_tensors_that_do_not_fit(change, message):
    rows = np.arange(9)
    given = {"keys": torch.zeros(9, 2, 32), "out": torch.zeros(9, 2, 32), "rope": make_rope(32)}
    given |= change
    shift = plan_shift(rows, rows, rows, given["rope"], torch.float32)
    with pytest.raises(EngineError, match=message):
        rope_shift(given["keys"], given["out"], shift)


@pytest.mark.parametrize(
    ("source", "target", "deltas", "message"),
    [
        ([0, 1], [0], [0, 0], "source has 2 rows, target 1 and deltas 2"),
        ([0, -1], [0, 1], [0, 0], "source row -1"),
        ([0, 1], [3, -2], [0, 0], r"target\[1\] is slot -2"),
        ([0, 1], [3, 3], [0, 0], "target has slot 3 twice"),
    ],
)
def test_rows_that_cannot_be(source, target, deltas, message):
    with pytest.raises(EngineError, match=message):
        plan_shift(
            *(np.array(rows) for rows in (source, target, deltas)), make_rope(8), torch.float16
        )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_working_copy_by_either_kernel(device, dtype, monkeypatch):
    """Ten segments of two layers, one of them latents; gathered again behind a change."""
    layers = (KVShape(2, 32, 32, None), KVShape(1, 48, 40, None, latent=True))
    pool = SlotPool(200)
    store = KVStore(layers, 200, dtype, device)
    for tensor in store.keys + [store.values[0]]:
        tensor.copy_(make_keys(*tensor.shape, dtype, device))
    first = [Segment(190 - 17 * i, 9 + i % 3, -i * i) for i in range(10)]
    then = [*first[:6], *(s._replace(offset=s.offset - 40) for s in first[6:])]
    copies = {}
    for kernels in ("torch", "triton"):
        monkeypatch.setenv("LEYLINE_KERNELS", kernels)
        copies[kernels] = copy = WorkingCopy(store, pool, make_rope(8))
        total = copy.update(first)
        assert copy.update(then) == total - sum(segment.length for segment in first[:6])
    for torchs, tritons in zip(copies["torch"].keys, copies["triton"].keys, strict=True):
        length = torch.full((total, 1, 1), 4.0, dtype=torch.float64)
        assert ulps(tritons[:total], torchs[:total].double().cpu(), length) <= 1
    assert same_bits(*(copy.values[0][:total] for copy in copies.values()))
