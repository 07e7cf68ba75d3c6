"""Runs to replay, and engines for them: counting, and with the tiny model."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from leyline_agent.message import Message

if TYPE_CHECKING:
    from leyline_agent.serving.models.load import LoadedModel
    from leyline_evals.replay.engines import Engines

POLICY = "truncate_older_than:n=2,max_chars=20"

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}},
}


def recorded(turns: int, chars: int = 120) -> list[Message]:
    """A run of so many tool calls, each answered by a text of its own, and a last reply."""
    messages: list[Message] = [
        {"role": "system", "content": "You are a careful programmer."},
        {"role": "user", "content": "Run the tests."},
    ]
    for number in range(turns - 1):
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": "bash", "arguments": json.dumps({"command": f"test {number}"})},
        }
        messages.append({"role": "assistant", "content": f"Step {number}.", "tool_calls": [call]})
        text = "".join(f"line {number}.{i} of the file\n" for i in range(chars // 20))
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
    return [*messages, {"role": "assistant", "content": "The tests pass now."}]


def line(messages: list[Message], name: str) -> str:
    """A run as a line of a file."""
    return json.dumps({"id": name, "messages": messages, "tools": [TOOL]}) + "\n"


@pytest.fixture
def runs_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes runs of the given numbers of turns, one a line."""

    def write(*turns: int, chars: int = 120, name: str = "runs.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(line(recorded(n, chars), f"run {n}") for n in turns))
        return path

    return write


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """For a while no file can grow beyond so many bytes, as on a full disk."""

    @contextmanager
    def full(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return full


@pytest.fixture(scope="session")
def counting(tiny_folder: Path) -> Engines:
    """Engines that only count, with the tiny model's tokenizer."""
    from leyline_evals.replay.engines import Engines

    return Engines.load(str(tiny_folder), tokens_only=True)


@pytest.fixture(scope="session")
def running(tiny_model: LoadedModel) -> Engines:
    """Engines that run the tiny model."""
    from leyline_evals.replay.engines import Engines

    return Engines("tiny", tiny_model.tokenizer, tiny_model)
