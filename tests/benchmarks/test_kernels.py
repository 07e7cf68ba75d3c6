"""The benchmark of the kernels at toy sizes, interpreted: every case runs, and its own checks."""

from __future__ import annotations

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = {
    "copy",
    "rope shift, gathered",
    "rope shift, in place",
    "KV store",
    "decode attention",
    "decode, no offsets",
    "decode, offsets",
    "zero-copy, attended",
    "working copy, made",
    "working copy, attended",
    "splice, on the host",
    *(
        f"toy {kernels}, {case}"
        for kernels in ("triton", "torch")
        for case in ("turn, append", "turn, amortize", "turn, forget", "decode step")
    ),
    "toy torch, decode, zero-copy",
    "toy torch, decode, working copy",
}


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton runs on Linux only")
def test_a_dry_run_measures_every_case(tmp_path: Path) -> None:
    out = tmp_path / "kernels.csv"
    run = subprocess.run(
        [sys.executable, "benchmarks/kernels.py", "--dry", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == CASES
    assert all(float(row["ms"]) > 0 for row in rows)
    assert all(float(row["ratio"]) > 0 for row in rows if row["against"])
    assert {row["segments"] for row in rows if row["case"] == "decode, offsets"} == {"1", "3"}
