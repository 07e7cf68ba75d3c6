"""Every kernel compiles for the GPUs we name, and fits into their shared memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("aot.py")
TARGETS = {"sm80", "sm90", "sm100", "gfx942"}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton runs on Linux only"
)


def compiled(cache: Path, *arguments: str) -> list[dict[str, Any]]:
    """What `aot.py` says of each compilation. Compiled kernels are kept for the next time."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def check(found: list[dict[str, Any]]) -> None:
    failed = [f"{f['kernel']} for {f['target']}: {f['error']}" for f in found if "error" in f]
    assert not failed, "\n".join(failed)
    large = [f for f in found if f["shared"] > f["limit"]]
    assert not large
    assert {f["target"] for f in found} == TARGETS


def test_the_representative_set_compiles(pytestconfig: pytest.Config) -> None:
    found = compiled(pytestconfig.cache.mkdir("triton"))
    check(found)
    assert len(found) <= 140  # more belongs into the full matrix


@pytest.mark.slow
def test_the_full_matrix_compiles(pytestconfig: pytest.Config) -> None:
    check(compiled(pytestconfig.cache.mkdir("triton"), "--full"))


def test_a_failure_names_kernel_and_target(tmp_path: Path) -> None:
    """The registry is the script's own folder: a copy of it beside a kernel that is wrong."""
    (tmp_path / "aot.py").write_text(SCRIPT.read_text())
    (tmp_path / "aot_wrong.py").write_text(
        "import triton, triton.language as tl\nfrom aot import Entry\n\n"
        "@triton.jit\ndef wrong(x, SIZE: tl.constexpr):\n    tl.store(x, tl.arange(0, SIZE))\n\n"
        "def entries():\n    yield Entry('wrong', wrong, {'x': '*fp32'}, {'SIZE': 3}, small=True)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, str(tmp_path / "aot.py")], env=environment, capture_output=True, text=True
    )
    found = [json.loads(line) for line in run.stdout.splitlines()]
    with pytest.raises(AssertionError, match="wrong for sm80: CompilationError.*power of 2"):
        check(found)
