import subprocess
import sys

import leyline_agent


def test_all_names_exist_and_are_sorted():
    assert sorted(leyline_agent.__all__) == leyline_agent.__all__
    assert all(hasattr(leyline_agent, name) for name in leyline_agent.__all__)


def test_importing_it_stays_light():
    heavy = "torch litellm openai httpx rich typer transformers numpy"
    code = f"import sys, leyline_agent; print([m for m in {heavy.split()!r} if m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"
