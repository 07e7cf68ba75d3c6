"""The Triton backend against the torch backend: the same batch, the same store."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.errors import EngineError  # noqa: E402
from leyline_agent.serving.kernels.backend import Rows  # noqa: E402
from leyline_agent.serving.kernels.torch_backend import TorchBackend  # noqa: E402
from leyline_agent.serving.kernels.triton_backend import TritonBackend  # noqa: E402
from leyline_agent.serving.kv.sequence import Segment  # noqa: E402
from leyline_agent.serving.kv.slots import SlotPool  # noqa: E402
from leyline_agent.serving.kv.store import KVStore  # noqa: E402
from leyline_agent.serving.models.probe import KVShape  # noqa: E402
from leyline_agent.serving.models.rope import RopeSpec  # noqa: E402

HALF = torch.arange(8, dtype=torch.float64) / 8
ROPE = RopeSpec(1e4**-HALF, "half", (3e5**-HALF, torch.zeros(8, dtype=torch.float64)))
BATCH = [
    Rows([Segment(0, 40), Segment(100, 30, 9), Segment(60, 10)], np.arange(70, 80)),
    Rows([Segment(200, 50, -3)], np.array([49])),
    Rows([Segment(300 + 5 * i, 3, 2 * i) for i in range(30)], np.array([2, 3, 40, 41, 89])),
    Rows([Segment(500, 1)], np.array([0])),
]
LAYERS = [
    KVShape(2, 64, 64, None),
    KVShape(1, 48, 32, None, latent=True),
    KVShape(2, 64, 64, 20, rope=1),
    KVShape(3, 32, 48, None, rope=2),
]
HEADS = [6, 4, 6, 3]


def filled(device):
    store = KVStore(LAYERS, 520, torch.float32, device)
    rng = torch.Generator().manual_seed(0)
    for keys, values in zip(store.keys, store.values, strict=True):
        values.copy_(torch.randn(values.shape, generator=rng))
        keys.copy_(torch.randn(keys.shape, generator=rng))
    return store


def test_a_mixed_batch_over_layers_of_several_kinds(device):
    """Rows of both kernels, a window, latents, three ropes; before and after it knows the heads."""
    stores = filled(device), filled(device)
    ours = TritonBackend(stores[0], ROPE)
    theirs = TorchBackend(stores[1], SlotPool(520), ROPE, max_segments=1000, copy_bytes=0)
    rng = torch.Generator().manual_seed(1)
    total = sum(len(rows.positions) for rows in BATCH)
    for _ in range(2):
        plans = ours.plan(BATCH), theirs.plan(BATCH)
        assert len(plans[0].copy_us) == len(BATCH)
        for layer, (shape, heads) in enumerate(zip(LAYERS, HEADS, strict=True)):
            key = torch.randn((shape.heads, total, shape.key_dim), generator=rng)
            value = torch.randn((shape.heads, total, shape.value_dim), generator=rng)
            if shape.latent:
                value = key[..., -shape.value_dim :]
            query = torch.randn((heads, total, shape.key_dim), generator=rng)
            outs = []
            for backend, plan in zip((ours, theirs), plans, strict=True):
                backend.store(plan, layer, key.to(device), value.to(device))
                outs.append(backend.attend(plan, layer, query.to(device), 0.2))
            assert torch.equal(stores[0].keys[layer], stores[1].keys[layer])
            assert torch.equal(stores[0].values[layer], stores[1].values[layer])
            limit = 1e-5 * float(outs[1].abs().max())
            torch.testing.assert_close(outs[0], outs[1].to(outs[0]), atol=limit, rtol=0)
    assert ours.drop() == 0


def test_new_slots_that_the_store_lacks_are_refused(device):
    backend = TritonBackend(filled(device), ROPE)
    with pytest.raises(EngineError, match=r"slots\[1\] is slot 520, and there are 520"):
        backend.plan([Rows([Segment(510, 11)], np.array([9, 10]))])
