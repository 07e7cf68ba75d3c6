"""Which kernels a device gets. Each case in a process of its own: triton is imported only once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from leyline_agent.serving.models.load import LoadedModel

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton runs on Linux only"
)

CODE = """
import logging, sys, types
logging.basicConfig(format="%(name)s %(levelname)s %(message)s")
{before}
from leyline_agent.serving.kernels.dispatch import choose
from leyline_agent.errors import EngineError
try:
    for _ in range(2):
        choice = choose(types.SimpleNamespace(type="{device}"))
    print(*choice, sep="|")
except EngineError as error:
    print("error", error, sep="|")
print("triton" in sys.modules)
"""
BLOCKED = """
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "triton":
            raise ImportError("no module named triton")
sys.meta_path.insert(0, Blocker())
"""
OLD = "sys.modules['triton'] = types.SimpleNamespace(__version__='3.1.0')"
NO_COMPILER = """
import triton
class Driver:
    @property
    def active(self):
        raise RuntimeError("Failed to find C compiler.")
triton.runtime.driver = Driver()
"""


def run(device: str, before: str = "", **variables: str) -> tuple[list[str], bool, list[str]]:
    """What was chosen (or "error") and why, whether triton was imported, and the lines logged."""
    kept = {k: v for k, v in os.environ.items() if k not in {"LEYLINE_KERNELS", "TRITON_INTERPRET"}}
    code = CODE.format(before=before, device=device)
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    chosen, imported = done.stdout.splitlines()
    return chosen.split("|", 1), imported == "True", done.stderr.splitlines()


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_without_a_gpu_torch_and_no_triton(device: str) -> None:
    assert run(device) == (["torch", f"the device is {device}"], False, [])


def test_torch_by_the_variable() -> None:
    assert run("cuda", LEYLINE_KERNELS="torch") == (["torch", "LEYLINE_KERNELS=torch"], False, [])


def test_an_unknown_value() -> None:
    (chosen, reason), imported, log = run("cpu", LEYLINE_KERNELS="cuda")
    assert (chosen, imported, log) == ("error", False, [])
    assert reason == "LEYLINE_KERNELS=cuda is not known; set auto, torch or triton"


@pytest.mark.parametrize(
    ("before", "why"),
    [
        (BLOCKED, "triton cannot be imported (no module named triton); pip install 'triton>=3.6'"),
        (OLD, "triton is 3.1.0; pip install 'triton>=3.6'"),
        pytest.param(NO_COMPILER, "Failed to find C compiler", marks=needs_triton),
    ],
    ids=["missing", "old", "no compiler"],
)
def test_a_gpu_that_triton_cannot_use_gets_torch_and_one_line(before: str, why: str) -> None:
    (chosen, reason), _, log = run("cuda", before)
    assert chosen == "torch"
    assert why in reason
    assert log == [
        f"leyline.serving.kernels WARNING torch's kernels serve the GPU, slowly: {reason}"
    ]
    (chosen, refusal), _, log = run("cuda", before, LEYLINE_KERNELS="triton")
    assert (chosen, log) == ("error", [])
    assert refusal == f"LEYLINE_KERNELS=triton, but {reason}"


@needs_triton
def test_no_driver() -> None:
    (chosen, reason), imported, log = run("cuda", CUDA_VISIBLE_DEVICES="")
    assert (chosen, imported, len(log)) == ("torch", True, 1)
    assert "triton cannot use the GPU" in reason
    assert "driver" in reason


@needs_triton
def test_triton_on_a_cpu_needs_the_interpreter() -> None:
    (chosen, reason), _, log = run("cpu", LEYLINE_KERNELS="triton")
    assert (chosen, log) == ("error", [])
    assert "set TRITON_INTERPRET=1" in reason
    chosen, *_ = run("cpu", LEYLINE_KERNELS="triton", TRITON_INTERPRET="1")
    assert chosen == ["triton", "Triton's interpreter"]


@needs_triton
@pytest.mark.parametrize(
    ("wanted", "backend"), [("auto", "TorchBackend"), ("triton", "TritonBackend")]
)
def test_an_engine_gets_the_backend_of_its_device(
    tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch, wanted: str, backend: str
) -> None:
    from leyline_agent.serving.engine import Engine, EngineConfig, Prompt

    monkeypatch.setenv("LEYLINE_KERNELS", wanted)
    engine = Engine.of(tiny_model, EngineConfig(kv_bytes=1 << 20))
    assert type(engine.executor.backend).__name__ == backend  # type: ignore[attr-defined]
    run = engine.start(Prompt([5, 6, 7, 8, 9]))
    assert run.finish().tokens[:5] == [5, 6, 7, 8, 9]


@pytest.mark.gpu
def test_a_gpu_gets_triton() -> None:
    assert run("cuda") == (["triton", "Triton sees the GPU"], True, [])
