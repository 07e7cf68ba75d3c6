"""Decode and extend against float64 attention that turns every key, with poison in all else.

Slots that no segment holds are NaN, and so is every tensor the launch allocates: what is read
without being there, or not written, shows.
"""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.serving.kernels.backend import Rows  # noqa: E402
from leyline_agent.serving.kernels.kv_store import page_slots  # noqa: E402
from leyline_agent.serving.kernels.segment_attend import (  # noqa: E402
    segment_attend,
    segment_attention_reference,
)
from leyline_agent.serving.kernels.segment_blocks import Blocks  # noqa: E402
from leyline_agent.serving.kv.sequence import Segment  # noqa: E402
from leyline_agent.serving.models.rope import RopeSpec  # noqa: E402

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}
DTYPES = list(TOLERANCE)


@pytest.fixture(autouse=True)
def _poison():
    """torch fills what it allocates with NaN while its algorithms are to be deterministic."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def rope_of(rotary_dim, pairing="half"):
    half = rotary_dim // 2
    return RopeSpec(1e4 ** -(torch.arange(half, dtype=torch.float64) / half), pairing)


def cut(rng, lengths, moved=0.8):
    """Segments of these lengths in random order in the store, most at offsets of their own."""
    slots, at = np.zeros(len(lengths), int), 0
    for index in rng.permutation(len(lengths)):
        at += int(rng.integers(0, 7))
        slots[index] = at
        at += lengths[index]
    offsets = rng.integers(-500, 500, len(lengths)) * (rng.random(len(lengths)) < moved)
    return [Segment(int(s), n, int(o)) for s, n, o in zip(slots, lengths, offsets, strict=True)], at


def place(sequences):
    """Sequences cut apart, one behind the other in the store; and how many slots it has."""
    batch, base = [], 0
    for (segments, size), positions in sequences:
        moved = [segment._replace(slot=segment.slot + base) for segment in segments]
        batch.append(Rows(moved, np.array(positions, np.int64)))
        base += size + 5
    return batch, base


def make(batch, num_slots, heads, dim, dtype, device, *, value_dim=None, latent=False, seed=0):
    """Query, keys and values, NaN in slots that nobody holds."""
    query_heads, kv_heads = heads
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=rng).to(dtype)

    total = sum(len(rows.positions) for rows in batch)
    query = normal(total, query_heads, dim).transpose(0, 1) * 2
    keys, values = normal(num_slots, kv_heads, dim), normal(num_slots, kv_heads, value_dim or dim)
    free = torch.ones(num_slots, dtype=torch.bool)
    for rows in batch:
        for segment in rows.segments:
            free[segment.slot : segment.slot + segment.length] = False
    keys[free], values[free] = torch.nan, torch.nan
    keys = keys.to(device)
    values = keys[..., dim - value_dim :] if latent else values.to(device)
    return query.to(device), keys, values


def check(batch, tensors, rope, *, window=None, scale=None, **how):
    query, keys, values = tensors
    scale = scale or query.shape[2] ** -0.5
    out = segment_attend(query, keys, values, batch, rope=rope, scale=scale, window=window, **how)
    expected = segment_attention_reference(
        query, keys, values, batch, rope=rope, scale=scale, window=window
    )
    assert out.dtype == query.dtype
    assert not out.isnan().any()
    error = (out.double() - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCE[query.dtype]


def decode_case(rng, lengths):
    return (cut(rng, lengths), [sum(lengths) - 1])


@pytest.mark.parametrize("heads", [(4, 4), (9, 3), (8, 1)])
@pytest.mark.parametrize("count", [1, 8, 125, 1000])
def test_decode_over_many_segments(device, heads, count):
    rng = np.random.default_rng(count)
    lengths = [1000] if count == 1 else (rng.integers(1, 2000 // count + 2, count)).tolist()
    batch, size = place([decode_case(rng, lengths), decode_case(rng, [37])])
    tensors = make(batch, size, heads, 64, torch.float32, device)
    check(batch, tensors, rope_of(64))


SIZES = [(64, 64), (80, 80), (80, 32), (96, 96), (128, 128), (192, 192), (256, 64)]


@pytest.mark.parametrize(("dim", "rotary"), SIZES)
@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("kind", ["decode", "extend"])
def test_head_sizes_and_types(device, kind, dim, rotary, pairing):
    """Each size in one of the types, another one for the other pairing."""
    dtype = DTYPES[(dim // 16 + (pairing == "half")) % 3]
    lengths = [90, 1, 0, 17, 40, 3, 1, 5, 9, 2, 40]
    positions = [207] if kind == "decode" else [*range(50, 60), *range(195, 208)]
    batch, size = place([(cut(np.random.default_rng(dim), lengths), positions)])
    tensors = make(batch, size, (5, 1), dim, dtype, device)
    check(batch, tensors, rope_of(rotary, pairing))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [16, 128])
@pytest.mark.parametrize("kind", ["decode", "extend"])
def test_latents(device, kind, heads, dtype):
    """MLA: one key head of 64 + 512, whose last entries are the values, and any query heads."""
    positions = [123] if kind == "decode" else [100, 101, 123]
    batch, size = place([(cut(np.random.default_rng(heads), [70, *[3] * 18]), positions)])
    tensors = make(batch, size, (heads, 1), 576, dtype, device, value_dim=512, latent=True)
    check(batch, tensors, rope_of(64, "interleaved"), scale=0.1)


@pytest.mark.parametrize("window", [1, 64, 130, 1000])
def test_decode_in_a_window(device, window):
    rng = np.random.default_rng(window)
    lengths = [100, *[7] * 20, 61]
    batch, size = place([decode_case(rng, lengths), decode_case(rng, [80, 80])])
    tensors = make(batch, size, (4, 2), 64, torch.float32, device)
    how = {"blocks": Blocks(1, 2, 16, 32), "programs": 16}
    check(batch, tensors, rope_of(64), window=window, **how)


def test_more_partial_results_than_a_step_of_the_merge_takes(device):
    batch, size = place([decode_case(np.random.default_rng(0), [700, 600])])
    tensors = make(batch, size, (4, 1), 64, torch.float32, device)
    check(batch, tensors, rope_of(64), blocks=Blocks(1, 4, 16, 16), programs=99)


def test_decode_without_a_rope_over_segments_that_never_moved(device):
    rng = np.random.default_rng(0)
    batch, size = place([(cut(rng, [5] * 30, moved=0.0), [149])])
    check(batch, make(batch, size, (4, 2), 64, torch.float32, device), None)


def test_one_key(device):
    batch, size = place([(([Segment(2, 1, 7)], 3), [0])])
    query, keys, values = make(batch, size, (3, 1), 64, torch.float32, device)
    out = segment_attend(query, keys, values, batch, rope=rope_of(64), scale=1.0)
    torch.testing.assert_close(out[0], values[2].expand(3, -1))


@pytest.mark.parametrize("page", [1, 16])
def test_pages_are_runs_of_slots(device, page):
    """A block table says which pages hold a sequence; a page is a segment of `page` slots."""
    rng = np.random.default_rng(page)
    table, length = rng.permutation(60)[: -(-210 // page) if page > 1 else 60], 210
    length = min(length, len(table) * page)
    ends = np.minimum(np.arange(page, len(table) * page + page, page), length)
    sizes = np.diff(ends, prepend=0)
    segments = [
        Segment(int(p) * page, int(n), 3 * i)
        for i, (p, n) in enumerate(zip(table, sizes, strict=True))
    ]
    batch = [Rows(segments, np.array([length - 1]))]
    query, keys, values = make(batch, 60 * page, (4, 2), 64, torch.float32, device)
    pages = [tensor.unflatten(0, (60, page)) for tensor in (keys, values)]
    check(batch, (query, *map(page_slots, pages)), rope_of(64))


def test_a_sequence_of_one_query_beside_one_of_several(device):
    batch, size = place(
        [
            (cut(np.random.default_rng(n), [40, 3, 20]), p)
            for n, p in enumerate(([62], [50, 61, 62], range(30, 63)))
        ]
    )
    check(batch, make(batch, size, (4, 2), 64, torch.float32, device), rope_of(64))


EXTENDS = {
    "prefill": ([200], range(200)),
    "chunk": ([200, 1, 30, 5, 70], range(256, 306)),
    "repair": ([60, 3, 1, 0, 9, 12, 5, 7, 2, 40], [*range(60, 76), 90, 101, *range(120, 139)]),
    "one": ([33, 20], [52]),
    "first": ([40], [0]),
}


@pytest.mark.parametrize("heads", [(4, 4), (9, 3), (8, 1)])
@pytest.mark.parametrize("case", list(EXTENDS))
def test_extend(device, heads, case):
    lengths, positions = EXTENDS[case]
    batch, size = place([(cut(np.random.default_rng(len(case)), lengths), positions)])
    check(batch, make(batch, size, heads, 64, torch.float32, device), rope_of(64))


@pytest.mark.parametrize("window", [1, 40, 1000])
def test_extend_in_a_window(device, window):
    """Small tiles, several sequences and shares, so that everything has an edge somewhere."""
    rng = np.random.default_rng(window)
    cases = [EXTENDS["repair"], ([50, 30], range(70, 80)), ([9], [2, 8])]
    batch, size = place([(cut(rng, lengths), positions) for lengths, positions in cases])
    tensors = make(batch, size, (3, 1), 64, torch.float32, device)
    how = {"blocks": Blocks(5, 3, 16, 32), "programs": 20}
    check(batch, tensors, rope_of(64), window=window, **how)


@pytest.mark.parametrize("kind", ["decode", "extend"])
def test_slots_beyond_what_32_bits_address(device, kind):
    """Entry 2**31 and on of a store, of which only a few pages are ever touched."""
    far = 2**25 + 10
    short = [Segment(far + 140 + 6 * i, 3, -i) for i in range(12)]
    batch = [Rows([Segment(3, 20, 5), Segment(far, 130, -2), *short], np.array([185]))]
    if kind == "extend":
        batch = [batch[0]._replace(positions=np.arange(140, 186))]
    torch.use_deterministic_algorithms(False)  # which would fill all of it
    keys = torch.empty((far + 220, 1, 64), dtype=torch.bfloat16, device=device)
    for segment in batch[0].segments:
        keys[segment.slot : segment.slot + segment.length] = torch.randn(segment.length, 1, 64)
    query = torch.randn(2, len(batch[0].positions), 64, dtype=torch.bfloat16, device=device)
    check(batch, (query, keys, keys[..., 32:]), rope_of(32))
