"""Samples: a few turns of every format, written by hand in the shape its harness writes.

`samples/<format>.json`, and `samples/<format>.<version>.json` for older versions.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline_agent.message import Message
from leyline_agent.readers import Recording, read_text

FOLDER = Path(__file__).parent / "samples"


@pytest.fixture(scope="session")
def sample_texts() -> dict[str, str]:
    """Every sample as text, by name."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.json"))}


@pytest.fixture
def sample(sample_texts: dict[str, str]) -> Callable[[str], Any]:
    """The named sample, parsed; a test may change it."""
    return lambda name: json.loads(sample_texts[name])


@pytest.fixture
def recording(sample_texts: dict[str, str]) -> Callable[[Any], Recording]:
    """The one run in a sample, named or changed by the test."""

    def read_one(record: Any) -> Recording:
        text = sample_texts[record] if isinstance(record, str) else json.dumps(record)
        (found,) = read_text(text)
        return found

    return read_one


@pytest.fixture
def short() -> Callable[[Message], tuple[Any, ...]]:
    """A message as (role, content, calls, the rest); the last two only where there are any."""

    def shorten(message: Message) -> tuple[Any, ...]:
        calls = [
            (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in message.get("tool_calls", ())
        ]
        rest = {k: v for k, v in message.items() if k not in ("role", "content", "tool_calls")}
        found = (message["role"], message["content"])
        return (*found, *([calls] if calls else []), *([rest] if rest else []))

    return shorten


@pytest.fixture
def shorts(short: Callable[[Message], Any]) -> Callable[[Recording], list[Any]]:
    """All messages of a run, shortened."""
    return lambda run: [short(message) for message in run.messages]
