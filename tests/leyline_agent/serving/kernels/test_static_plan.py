"""Static plans filled again and again, against plans made for each pass."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.serving.kernels.backend import Rows  # noqa: E402
from leyline_agent.serving.kernels.static_plan import Capacity, StaticPlan  # noqa: E402
from leyline_agent.serving.kernels.triton_backend import TritonBackend  # noqa: E402
from leyline_agent.serving.kv.sequence import Segment  # noqa: E402
from leyline_agent.serving.kv.store import KVStore  # noqa: E402
from leyline_agent.serving.models.probe import KVShape  # noqa: E402
from leyline_agent.serving.models.rope import RopeSpec  # noqa: E402

HALF = torch.arange(16, dtype=torch.float64) / 16
ROPE = RopeSpec(1e4**-HALF, "half", (3e5**-HALF,))
LAYERS = [KVShape(2, 32, 32, None), KVShape(2, 32, 32, 20, rope=1)]
PLAIN = [
    Rows([Segment(0, 150)], np.array([149])),
    Rows([Segment(200, 31), Segment(300, 9)], np.array([39])),
]
MOVED = [
    Rows([Segment(0, 100, 4), Segment(150, 20, -9)], np.array([119])),
    *PLAIN,
    Rows([Segment(400 + 4 * i, 3, -i) for i in range(20)], np.array([59])),
]


@pytest.fixture
def backend(device):
    store = KVStore(LAYERS, 500, torch.float32, device)
    rng = torch.Generator().manual_seed(0)
    for tensor in (*store.keys, *store.values):
        tensor.copy_(torch.randn(tensor.shape, generator=rng))
    backend = TritonBackend(store, ROPE)
    run(backend, backend.plan(PLAIN), inputs(2, device))  # learns the heads
    return backend


def inputs(rows, device, seed=1):
    """Query, key and value of `rows` new tokens."""
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn((heads, rows, 32), generator=rng).to(device) for heads in (6, 2, 2)]


def run(backend, plan, tensors):
    query, key, value = tensors
    outs = []
    for layer in range(len(LAYERS)):
        backend.store(plan, layer, key, value)
        outs.append(backend.attend(plan, layer, query, 0.2))
    return torch.stack(outs)


def test_filled_again_a_plan_is_as_good_as_a_new_one(backend, device):
    plan = StaticPlan(backend, Capacity(4, runs=16, spans=64, offsets=32), moved=True)
    held = plan.works, plan.slots.data_ptr()
    for batch in (MOVED, PLAIN, MOVED[:1], MOVED[2:]):
        tensors = inputs(4, device, seed=len(batch))
        own = [tensor[:, : len(batch)] for tensor in tensors]
        assert plan.fill(batch)
        before = [tensor.clone() for tensor in (*backend.kv.keys, *backend.kv.values)]
        out = run(backend, plan, tensors)
        after = [tensor.clone() for tensor in (*backend.kv.keys, *backend.kv.values)]
        for tensor, saved in zip((*backend.kv.keys, *backend.kv.values), before, strict=True):
            tensor.copy_(saved)
        expected = run(backend, backend.plan(batch), own)
        torch.testing.assert_close(out[:, : len(batch)], expected, atol=1e-5, rtol=1e-5)
        assert not out[:, len(batch) :].any()
        for tensor, static in zip((*backend.kv.keys, *backend.kv.values), after, strict=True):
            assert torch.equal(tensor, static)
    assert (plan.works, plan.slots.data_ptr()) == held


@pytest.mark.parametrize(
    ("capacity", "moved"),
    [
        (Capacity(3, 16, 64, 32), True),
        (Capacity(4, 3, 64, 32), True),
        (Capacity(4, 16, 59, 32), True),
        (Capacity(4, 16, 64, 19), True),
        (Capacity(4, 16, 64, 32), False),
    ],
)
def test_a_batch_that_does_not_fit_changes_nothing(backend, device, capacity, moved):
    plan = StaticPlan(backend, capacity, moved=moved)
    assert plan.fill(PLAIN)
    tensors = inputs(capacity.rows, device)
    before = run(backend, plan, tensors)
    assert not plan.fill(MOVED)
    assert torch.equal(run(backend, plan, tensors), before)


def test_without_a_rope_nothing_is_turned(backend, device):
    layers = [layer._replace(rope=0) for layer in LAYERS]
    plain = TritonBackend(KVStore(layers, 500, torch.float32, device), None)
    plain.kv.keys, plain.kv.values = backend.kv.keys, backend.kv.values
    batch = [Rows([Segment(20 * i, 3) for i in range(20)], np.array([59]))]
    expected = run(plain, plain.plan(batch), inputs(1, device))
    plan = StaticPlan(plain, Capacity(1), moved=True)
    assert plan.fill(batch)
    torch.testing.assert_close(run(plain, plan, inputs(1, device)), expected)
    assert not plan.fill(MOVED[:1])
