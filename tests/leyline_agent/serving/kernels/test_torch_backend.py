"""The torch backend: a batch gives what each of its sequences gives alone, copies or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.segment_attention import plan_attention, segment_attention
from leyline_agent.serving.kernels.torch_backend import TorchBackend
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.models.probe import KVShape
from leyline_agent.serving.models.rope import RopeSpec

HEADS, KV_HEADS, DIM, SLOTS, SCALE = 6, 2, 16, 4000, 0.3
ROPE = RopeSpec(1e4 ** -(torch.arange(8, dtype=torch.float64) / 8), "half")
WINDOWS = (None, 50)


def rows(first: int, length: int, pieces: int, positions: list[int]) -> Rows:
    """A sequence in pieces that have moved, but for those that hold new tokens."""
    edges = np.linspace(0, length, pieces + 1).astype(int).tolist()
    segments = []
    for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        fresh = any(a <= position < b for position in positions)
        segments.append(Segment(first + a + 3 * i, b - a, 0 if fresh else 7 * (i % 3)))
    return Rows(segments, np.array(positions, np.int64))


BATCH = [
    rows(0, 300, 1, [299]),
    rows(400, 200, 20, [199]),
    rows(800, 150, 3, list(range(100, 150))),
    rows(1200, 260, 30, [3, 4, 5, 90, *range(240, 260)]),
    rows(1700, 1, 1, [0]),
]


@pytest.fixture
def store() -> KVStore:
    torch.manual_seed(0)
    store = KVStore(tuple(KVShape(KV_HEADS, DIM, DIM, w) for w in WINDOWS), SLOTS, torch.float32)
    for tensor in (*store.keys, *store.values):
        tensor.normal_()
    return store


def new(batch: list[Rows]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of all rows, laid out as a model gives them."""
    total = sum(len(one.positions) for one in batch)
    torch.manual_seed(1)
    query, key, value = (torch.randn(total, heads, DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
    return query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)


@pytest.mark.parametrize("copy_bytes", [0, 1 << 14, 1 << 26])  # room for none, some, all
@pytest.mark.parametrize("batch", [BATCH, BATCH[:2], BATCH[1:2], BATCH[::-1]])
def test_a_batch_gives_what_each_gives_alone(
    store: KVStore, batch: list[Rows], copy_bytes: int
) -> None:
    pool = SlotPool(SLOTS)
    pool.allocate(SLOTS)
    copy_bytes = 900 * store.bytes_per_token if copy_bytes == 1 << 14 else copy_bytes
    backend = TorchBackend(store, pool, ROPE, copy_bytes=copy_bytes)
    query, key, value = new(batch)
    for _ in range(2):  # the second pass finds the copies made
        plan = backend.plan(batch)
        for layer, window in enumerate(WINDOWS):
            backend.store(plan, layer, key, value)
            out = backend.attend(plan, layer, query, SCALE)
            at = 0
            for one in batch:
                part = slice(at, at := at + len(one.positions))
                assert torch.equal(store.keys[layer][one.slots], key[:, part].transpose(0, 1))
                assert torch.equal(store.values[layer][one.slots], value[:, part].transpose(0, 1))
                alone = plan_attention(one.segments, one.positions, ROPE, window=window)
                keys, values = store.keys[layer], store.values[layer]
                expected = segment_attention(query[:, part], keys, values, alone, SCALE)
                torch.testing.assert_close(out[part], expected, atol=1e-5, rtol=1e-5)
    wanted = sum(len(one.segments) > backend.max_segments for one in batch)
    made = {0: 0, 1 << 26: wanted}.get(copy_bytes, min(1, wanted))
    assert len(backend.copies) == made
    assert sum(us > 0 for us in plan.copy_us) == made
    assert (backend.drop() > 0) == (made > 0)


@pytest.mark.parametrize("copy_bytes", [0, 1 << 26])
@pytest.mark.parametrize("batch", [BATCH, *([one] for one in BATCH)])
def test_on_another_device_everything_is_there(batch: list[Rows], copy_bytes: int) -> None:
    """LEYLINE_KERNELS=torch serves any device; on "meta" a stray CPU tensor is an error."""
    shapes = tuple(KVShape(KV_HEADS, DIM, DIM, window) for window in WINDOWS)
    pool = SlotPool(SLOTS)
    pool.allocate(SLOTS)
    store = KVStore(shapes, SLOTS, torch.float32, "meta")
    backend = TorchBackend(store, pool, ROPE, copy_bytes=copy_bytes)
    plan = backend.plan(batch)
    query, key, value = (tensor.to("meta") for tensor in new(batch))
    for layer in range(len(WINDOWS)):
        backend.store(plan, layer, key, value)
        out = backend.attend(plan, layer, query, SCALE)
        assert (out.device.type, out.shape) == ("meta", (query.shape[1], HEADS, DIM))
