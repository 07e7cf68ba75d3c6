"""Record the scripted agent's run: `python -m leyline_evals.demo.record` renews recording.json.

The recording is an OpenAI chat: {"format": "leyline-demo", "messages": [...], "tools": [...]}.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leyline_evals.demo.script import SCRIPT, SYSTEM, TASK, Step
from leyline_evals.demo.workshop import TOOLS, Workshop

__all__ = ["RECORDING", "dump", "record"]

RECORDING = Path(__file__).with_name("recording.json")


def record() -> dict[str, Any]:
    """Run the script in a temporary copy of the repository."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": TASK},
    ]
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for number, step in enumerate(SCRIPT, 1):
            messages += _turn(step, number, workshop)
    return {"format": "leyline-demo", "messages": messages, "tools": TOOLS}


def dump(recording: dict[str, Any]) -> str:
    """The recording as the text of its file."""
    return json.dumps(recording, indent=1, ensure_ascii=False) + "\n"


def _turn(step: Step, number: int, workshop: Workshop) -> Iterator[dict[str, Any]]:
    """The assistant's message of one step, and the tools' answers."""
    ids = [f"call_{number:02d}{'abc'[index]}" for index in range(len(step.calls))]
    assistant: dict[str, Any] = {"role": "assistant", "content": step.says}
    if step.calls:
        assistant["tool_calls"] = [
            {
                "id": id_,
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
            for id_, (name, arguments) in zip(ids, step.calls, strict=True)
        ]
    yield assistant
    for id_, (name, arguments) in zip(ids, step.calls, strict=True):
        content = workshop.call(name, arguments)
        yield {"role": "tool", "tool_call_id": id_, "content": content}


if __name__ == "__main__":
    RECORDING.write_text(dump(record()))
    print(f"wrote {RECORDING.name}")
