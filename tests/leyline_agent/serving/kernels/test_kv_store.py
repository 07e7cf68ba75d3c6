"""KV store: every row in its slot, bit for bit, and nothing else touched."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.checks import check_slots
from leyline_agent.serving.kernels.kv_store import kv_store, kv_store_reference, page_slots

pytest.importorskip("triton", reason="Triton runs on Linux only")

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(8, 128, 128), (3, 64, 64), (2, 80, 80), (1, 256, 256), (5, 192, 128), (1, 7, 3)]


def normal(shape, dtype, device, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(device)


def empty_store(rows, heads, dim, dtype, device):
    """NaN everywhere: whatever stays NaN was not written."""
    return torch.full((rows, heads, dim), torch.nan, dtype=dtype, device=device)


def check(keys, key, slots):
    slots = torch.as_tensor(slots, device=keys.device)
    assert torch.equal(keys[slots], key.transpose(0, 1))
    written = torch.zeros(len(keys), dtype=torch.bool, device=keys.device)
    written[slots] = True
    assert keys[~written].isnan().all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "dim", "dim_v"), SHAPES)
def test_rows_go_into_their_slots(device, dtype, heads, dim, dim_v):
    slots = torch.from_numpy(np.random.default_rng(dim).permutation(90)[:37]).to(device)
    keys, values = (empty_store(90, heads, d, dtype, device) for d in (dim, dim_v))
    key, value = (normal((heads, 37, d), dtype, device, d) for d in (dim, dim_v + 1))
    value = value[..., 1:]  # strides of a cut-out
    kv_store(keys, values, key, value, slots)
    check(keys, key, slots)
    check(values, value, slots)
    again = empty_store(90, heads, dim, dtype, device)
    kv_store_reference(again, None, key, None, slots)
    assert torch.equal(again[slots], keys[slots])


@given(st.permutations(range(20)), st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_any_slots_in_any_order(order, count):
    slots = torch.tensor(order[:count], dtype=torch.int64)
    keys, values = (empty_store(20, 2, d, torch.float32, "cpu") for d in (8, 4))
    key, value = (normal((2, count, d), torch.float32, "cpu") for d in (8, 4))
    kv_store(keys, values, key, value, slots)
    check(keys, key, slots)
    check(values, value, slots)


@pytest.mark.parametrize("count", [0, 1, 500])
def test_none_one_and_many(device, count):
    """Many: more rows than one program takes."""
    slots = torch.arange(count, device=device).flip(0) + 3
    keys, key = empty_store(510, 3, 64, torch.float16, device), torch.ones(3, count, 64)
    kv_store(keys, None, key.half().to(device), None, slots)
    check(keys, key.half().to(device), slots)


@pytest.mark.parametrize("layout", ["heads first", "tokens first", "fused", "transposed store"])
def test_strides(device, layout):
    rng, slots = np.random.default_rng(3), torch.arange(10, device=device)
    fused = normal((10, 2 * 24 + 40), torch.bfloat16, device, int(rng.integers(9)))
    key = {
        "heads first": fused[:, :48].reshape(10, 2, 24).transpose(0, 1).contiguous(),
        "tokens first": fused[:, :48].contiguous().view(10, 2, 24).transpose(0, 1),
        "fused": fused[:, 8:56].unflatten(1, (2, 24)).transpose(0, 1),
        "transposed store": fused[:, :48].reshape(10, 2, 24).transpose(0, 1),
    }[layout]
    keys = empty_store(12, 2, 24, torch.bfloat16, device)
    if layout == "transposed store":
        keys = keys.transpose(0, 1).contiguous().transpose(0, 1)
    kv_store(keys, None, key, None, slots)
    check(keys, key, slots)


def test_latents_write_the_values_with_the_keys(device):
    keys = empty_store(9, 1, 576, torch.bfloat16, device)
    key = normal((1, 4, 576), torch.bfloat16, device)
    kv_store(keys, None, key, None, torch.tensor([8, 0, 3, 5], device=device))
    assert torch.equal(keys[..., 64:][[8, 0, 3, 5], 0], key[0, :, 64:])


@pytest.mark.parametrize("page_size", [1, 16])
def test_pages_are_runs_of_slots(device, page_size):
    """Slot s is token s % page_size of page s // page_size, in the same memory."""
    pages = torch.full((6, page_size, 2, 32), torch.nan, device=device)
    key = normal((2, 5, 32), torch.float32, device)
    slots = [0, 6 * page_size - 1, page_size, 2 * page_size + page_size // 2, 5 * page_size - 1]
    keys = page_slots(pages)
    assert keys.data_ptr() == pages.data_ptr()
    kv_store(keys, None, key, None, torch.tensor(slots, device=device))
    for i, slot in enumerate(slots):
        assert torch.equal(pages[slot // page_size, slot % page_size], key[:, i])
    assert pages.isnan().sum() == pages.numel() - key.numel()


def test_pages_with_heads_outside_are_refused():
    pages = torch.zeros(6, 2, 16, 32).transpose(1, 2)
    with pytest.raises(EngineError, match=r"pages \(6, 16, 2, 32\) with strides .* lay them out"):
        page_slots(pages)


def test_a_store_of_more_than_2_to_the_31_elements(device):
    """Its memory is reserved and, but for three rows, never touched."""
    last = 2**31 // 64
    keys = torch.empty((last + 40, 1, 64), dtype=torch.bfloat16, device=device)
    key = normal((1, 3, 64), torch.bfloat16, device)
    slots = torch.tensor([0, last + 5, last - 1], device=device)
    kv_store(keys, None, key, None, slots)
    assert torch.equal(keys[slots], key.transpose(0, 1))


@pytest.mark.gpu
def test_negative_slots_are_not_stored():
    """On a GPU: padding of a captured graph."""
    keys, key = empty_store(5, 2, 16, torch.float32, "cuda"), torch.ones(2, 3, 16, device="cuda")
    kv_store(keys, None, key, None, torch.tensor([3, -1, -1], device="cuda"))
    check(keys, key[:, :1], [3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": torch.zeros(2, 3, 8, dtype=torch.float16)}, "key is torch.float16 and keys is"),
        ({"values": torch.zeros(9, 2, 8, dtype=torch.bfloat16)}, "value is torch.float32 and valu"),
        ({n: torch.zeros(2, 3, 8).double() for n in ("keys", "key")}, "keys is torch.float64; the"),
        ({"key": torch.zeros(2, 8, 3).mT}, "last dimension of key is not contiguous"),
        ({"key": torch.zeros(3, 3, 8)}, r"key \(3, 3, 8\) and slots \(3,\) do not fit keys"),
        ({"value": torch.zeros(2, 3, 4)}, r"value \(2, 3, 4\) and slots \(3,\) do not fit values"),
        ({"value": None}, "values and value go together"),
        ({"slots": torch.tensor([1, 2])}, r"slots \(2,\) do not fit"),
        ({"slots": torch.tensor([1, 2, 3], dtype=torch.int32)}, "slots are torch.int32 on cpu"),
        ({"slots": torch.tensor([1, 9, 3])}, r"slots\[1\] is slot 9, and there are 9"),
        ({"slots": torch.tensor([1, 2, -1])}, r"slots\[2\] is slot -1"),
        ({"slots": torch.tensor([4, 2, 4])}, "slots has slot 4 twice"),
        ({"keys": torch.zeros(9, 2, 8, device="meta")}, "key is cpu and keys is meta"),
        (
            {"keys": torch.zeros(9, 1, 8), "key": torch.zeros(1, 3, 8)},
            "key has 1 heads and value 2",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    given = {
        "keys": torch.zeros(9, 2, 8),
        "values": torch.zeros(9, 2, 8),
        "key": torch.zeros(2, 3, 8),
        "value": torch.zeros(2, 3, 8),
        "slots": torch.tensor([1, 2, 3]),
    }
    with pytest.raises(EngineError, match=message):
        kv_store(**{**given, **change})


def test_slots_to_read_may_come_twice():
    check_slots("source", np.array([1, 1]), 2, distinct=False)
