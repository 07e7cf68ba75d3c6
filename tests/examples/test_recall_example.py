"""examples/recall.py, run as its users run it."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "recall.py"


def test_the_model_sees_more_than_the_harness():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[:3] == [
        "the harness: user assistant tool assistant tool assistant",
        "the model:   user assistant tool assistant tool assistant tool assistant",
        "3 turns, 1 hidden call, 1 recall",
    ]
