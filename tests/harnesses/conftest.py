"""What the frameworks' tests share: an episode's tool output, its policy, and what must hold."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent.adapter import Commit, Request

POLICY = "truncate_older_than:n=1,max_chars=60"

Sent = Sequence[tuple[str, str, str]]
"""A request as tuples: role, text, and the ids of the calls it makes or answers."""


@pytest.fixture
def policy() -> str:
    """Stubs every tool result but the newest."""
    return POLICY


@pytest.fixture
def output() -> Callable[[int], str]:
    """What the tool prints the n-th time: too long for the policy."""
    return lambda number: f"output {number}\n" + f"line of output {number}\n" * 40


@pytest.fixture
def check() -> Callable[[Sequence[Sent]], None]:
    """Check the requests of one episode, oldest first: edited, paired, and stable."""

    def check(requests: Sequence[Sent]) -> None:
        for request in requests:
            results = [text for role, text, _ in request if role == "tool"]
            assert all(len(text) < 200 for text in results[:-1]), "an old output was not stubbed"
            assert all(len(text) > 500 for text in results[-1:]), "the newest output was cut"
            made = [id for role, _, ids in request if role == "assistant" for id in ids.split()]
            answered = [ids for role, _, ids in request if role == "tool"]
            assert made == answered, "a call lost its result"
        for before, after in zip(requests, requests[1:], strict=False):
            changed = [i for i, one in enumerate(before) if tuple(after[i : i + 1]) != (one,)]
            newest = [i for i, one in enumerate(before) if one[0] == "tool"][-1:]
            assert set(changed) <= set(newest), "the view changed where nothing was new"
        assert len(requests[-1]) > len(requests[0])

    return check


class Telling(OpenAICompatibleAdapter):
    """Tells the engine the version, as an adapter for one that splices does."""

    def prepare(self, request: Request, commit: Commit) -> Request:
        return {**request, "extra_body": {**request.get("extra_body", {}), "v": commit.version}}


@pytest.fixture
def telling() -> Telling:
    """An adapter that adds to the request and does not make the call."""
    return Telling()


@pytest.fixture
def run_example() -> Callable[[str], None]:
    """Run a file of examples/ as its users do; of five outputs three are stubs in the end."""

    def run(name: str) -> None:
        file = Path(__file__).resolve().parents[2] / "examples" / name
        done = subprocess.run(
            [sys.executable, file], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        sizes = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) characters", done.stdout)]
        assert len(sizes) == 7
        assert sizes[:-1] == sorted(sizes[:-1])
        assert sizes[-2] < sizes[-1] / 2, "the last call was not shorter than the record"
        assert done.stdout.splitlines()[-1].startswith("Everything passes.")
        assert "; 3 edits" in done.stdout

    return run
