"""What the host refuses, and tables that are made once."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.errors import EngineError  # noqa: E402
from leyline_agent.serving.kernels.backend import Rows  # noqa: E402
from leyline_agent.serving.kernels.segment_attend import segment_attend  # noqa: E402
from leyline_agent.serving.kernels.segment_launch import Tables, pack, to_device, unpack  # noqa: E402
from leyline_agent.serving.kv.sequence import Segment  # noqa: E402
from leyline_agent.serving.models.rope import RopeSpec  # noqa: E402

ROPE = RopeSpec(1e4 ** -(torch.arange(32, dtype=torch.float64) / 32), "half")
CPU = torch.device("cpu")


def tensors(**changed):
    held = {
        "query": torch.randn(4, 1, 64),
        "keys": torch.randn(30, 2, 64),
        "values": torch.randn(30, 2, 64),
        "batch": [Rows([Segment(2, 20, 3)], np.array([19]))],
        "rope": ROPE,
    }
    return {**held, **changed}


WRONG = {
    "query is torch.float16 and keys is torch.float32": {"query": torch.ones(4, 1, 64).half()},
    "values is torch.bfloat16 and": {"values": torch.ones(30, 2, 64, dtype=torch.bfloat16)},
    "keys is torch.float64; the kernels know": {"keys": torch.ones(30, 2, 64).double()},
    "last dimension of keys is not contiguous": {"keys": torch.ones(30, 2, 128)[..., ::2]},
    "last dimension of query is not contiguous": {"query": torch.ones(4, 64, 1).mT[..., ::2]},
    "query has 2 dimensions": {"query": torch.ones(4, 64)},
    r"query \(3, 1, 64\) does not fit keys \(30, 2, 64\)": {"query": torch.ones(3, 1, 64)},
    r"query \(4, 1, 48\) does not fit": {"query": torch.ones(4, 1, 48)},
    r"values \(29, 2, 64\) do not fit keys": {"values": torch.ones(29, 2, 64)},
    "values have heads of 640 entries and the kernels go up to 512": {
        "values": torch.ones(30, 2, 640)
    },
    "query has 2 rows and the batch 1": {"query": torch.ones(4, 2, 64)},
    "segments reach slot 30 and keys has 30 slots": {
        "batch": [Rows([Segment(10, 21)], np.array([20]))]
    },
    "segments begin at slot -1": {"batch": [Rows([Segment(-1, 21)], np.array([20]))]},
    "sequence 0 of the batch has 20 tokens .* position 20": {
        "batch": [Rows([Segment(2, 20)], np.array([20]))]
    },
    "stands 3 positions from where its keys were rotated, and no rope": {"rope": None},
    "heads of 64 entries cannot be turned in 80": {
        "rope": RopeSpec(torch.ones(40, dtype=torch.float64), "half")
    },
}


@pytest.mark.parametrize("message", list(WRONG))
def test_an_error_names_what_is_wrong(message):
    with pytest.raises(EngineError, match=message):
        segment_attend(**tensors(**WRONG[message]), scale=1.0)


def test_tables_are_made_once_and_hold_the_turn_back():
    tables = Tables(ROPE, CPU, kept=2)
    offsets = np.array([-4, 0, 9])
    made = tables.of(offsets)
    assert made is not None
    assert torch.equal(made, torch.stack(ROPE.tables(torch.tensor([4, 0, -9]))))
    assert tables.of(np.array([-4, 0, 9])) is made
    assert tables.of(np.array([0])) is None
    tables.of(np.array([1]))
    tables.of(np.array([2]))
    assert tables.of(offsets) is not made


def test_arrays_share_one_transfer():
    arrays = [np.arange(3), np.zeros((0, 4), np.int64), np.arange(10).reshape(2, 5)]
    placed = unpack(to_device(pack(arrays), CPU), [array.shape for array in arrays])
    assert len({tensor.untyped_storage().data_ptr() for tensor in placed}) == 1
    for array, tensor in zip(arrays, placed, strict=True):
        assert tensor.dtype == torch.int32
        assert tensor.data_ptr() % 16 == 0
        assert np.array_equal(tensor.numpy(), array)
