"""Where the kernels run: under Triton's interpreter, or with `-m gpu` compiled, on the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device of a kernel's tensors; skips where the other way of running was chosen."""
    import numpy as np
    import torch

    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if interpreted != (request.param == "cpu"):
        pytest.skip("one process either interprets kernels or compiles them: -m gpu compiles")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with np.errstate(all="ignore"):  # the interpreter computes with numpy; a GPU warns of nothing
        yield str(request.param)
