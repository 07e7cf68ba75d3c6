"""examples/proxy_*, run as their users run them, against `leyline proxy` as a process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from model_server import serving

from leyline_agent.testing import DeterministicModel, tool_call

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROXY = [sys.executable, "-c", "from leyline_agent.cli import main; main()", "proxy"]


@pytest.fixture
def proxied():
    """The address of a proxy; upstream is a model that looks five times."""
    looks = [tool_call("bash", command=f"ls {n}") for n in range(5)]
    model = DeterministicModel(*looks, "I am done.")
    with serving(model) as url:
        options = ["--upstream", url, "--adapter", "openai", "--policy", "keep_last:n=2"]
        command = [*PROXY, *options, "--port", "0", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield json.loads(process.stdout.readline())["url"]
            finally:
                process.terminate()


def run(command, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_an_openai_client(proxied):
    url = f"{proxied}/s/example/v1"
    example = EXAMPLES / "proxy_openai_client.py"
    said = run([sys.executable, example], OPENAI_BASE_URL=url, OPENAI_API_KEY="k")
    assert "session example: 6 turns, 3 edits" in said


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl(proxied):
    said = run(["sh", EXAMPLES / "proxy_curl.sh"], LEYLINE_PROXY=proxied)
    assert "leyline-session: by-hand" in said
    [listed] = json.loads(said.splitlines()[-1])["data"]
    assert (listed["id"], listed["turns"]) == ("by-hand", 1)
