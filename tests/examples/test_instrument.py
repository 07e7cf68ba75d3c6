"""The examples of `instrument_*`, run as their users run them, against a server on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import anthropic_server
import model_server
import pytest

from leyline_agent.testing import DeterministicModel, tool_call

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def reply(messages):
    """Four calls, then the end."""
    results = sum(message["role"] == "tool" for message in messages)
    return tool_call("bash", id=f"c{results}", command="ls") if results < 4 else "Done."


@pytest.fixture
def model():
    return DeterministicModel(reply, repeat=True)


def run(name, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none", **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_litellm(model):
    with model_server.serving(model) as url:
        first, *receipts = run("instrument_litellm.py", OPENAI_API_BASE=url, MODEL="openai/m")
    assert first == "10 messages"
    assert [line.split(", ")[-1] for line in receipts] == [f"edits {n}" for n in (0, 0, 0, 1, 1)]
    assert all("cached not told" not in line for line in receipts)


def test_openai(model):
    with model_server.serving(model) as url:
        lines = run("instrument_openai.py", OPENAI_BASE_URL=url, MODEL="m")
    assert lines[:2] == ["Done.", "Done."]
    assert [line.split(", ")[:2] for line in lines[2:]] == [["10 messages", "2 edits"]] * 2


@pytest.mark.parametrize("server_side", [False, True])
def test_anthropic(model, server_side):
    scripted = anthropic_server.Scripted(model, lambda body: "")
    with anthropic_server.serving(scripted) as url:
        flags = ["--server-side"] if server_side else []
        first, *receipts = run("instrument_anthropic.py", *flags, ANTHROPIC_BASE_URL=url, MODEL="m")
    assert first == "10 messages"
    assert len(receipts) == 5
    assert any("clear_tool_uses" in line for line in receipts) != server_side
    assert all(("context_management" in body) == server_side for body in scripted.requests)
