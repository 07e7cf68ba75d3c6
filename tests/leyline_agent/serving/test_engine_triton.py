"""The engine's own tests over Triton's kernels, interpreted: two layers, all kinds of pairs.

The tests are those of `test_engine.py`; what differs is which kernels the engine was given.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.directive import Directive, Mode  # noqa: E402
from leyline_agent.serving.kernels.triton_backend import TritonBackend  # noqa: E402
from leyline_agent.serving.repair import RepairConfig  # noqa: E402


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tests = load("test_engine")


@pytest.fixture(autouse=True)
def _triton(monkeypatch):
    """Engines made from here on get Triton's kernels, which compute with numpy."""
    monkeypatch.setenv("LEYLINE_KERNELS", "triton")
    with np.errstate(all="ignore"):
        yield


@pytest.fixture(scope="module", params=["llama", "cohere", "glm", "gemma3_text"])
def loaded(request):
    """Half-split pairs; interleaved; interleaved and partial; two tables, and windows."""
    return tests.make_model(request.param)


@pytest.fixture(scope="module")
def llama():
    return tests.make_model("llama")


def test_the_engine_has_the_kernels(llama):
    assert isinstance(tests.engine_of(llama).executor.backend, TritonBackend)


def test_prefill_and_decode_equal_transformers(loaded):
    tests.test_prefill_and_decode_equal_transformers(loaded, 37)


def test_amortize_equals_a_reference_that_rotates_keys(loaded):
    tokens, appended = tests.some_tokens(300), tests.some_tokens(9, seed=1)
    _, run = tests.edited(tests.engine_of(loaded), tokens, tests.CUTS, appended)
    expected = tests.amortized_logits(loaded, tokens, tests.CUTS, appended)
    tests.assert_close(run.logits, expected)
    assert run.receipt.reused_spliced == 300 - 20 - 41 - 30


def test_repair_of_the_whole_suffix_equals_forget(loaded):
    tests.test_repair_of_the_whole_suffix_equals_forget(loaded)


def test_scattered_repair_is_what_the_other_kernels_make_of_it(llama, monkeypatch):
    """Boundary, echoes and tail: queries here and there, in one forward pass."""
    tokens = tests.some_tokens(120) + tests.some_tokens(60) + tests.some_tokens(120, seed=3)
    cut = [Directive(10, 60, (5,), Mode.REPAIR)]
    config = RepairConfig(window=8, tail=20)
    runs = []
    for kernels in ("triton", "torch"):
        monkeypatch.setenv("LEYLINE_KERNELS", kernels)
        engine = tests.engine_of(llama, repair=config)
        runs.append(tests.edited(engine, tokens, cut, [7, 8, 9])[1])
    assert runs[0].receipt.edits[0].recomputed["echo"] >= 30
    tests.assert_close(runs[0].logits, runs[1].logits)


def test_forget_equals_a_fresh_prefill(loaded):
    tests.test_forget_without_an_earlier_splice_equals_a_fresh_prefill(loaded, 64)
