"""The demo's recording: renewable, complete, and of a size that the embedded model can take."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from leyline_evals.demo.record import RECORDING, dump, record
from leyline_evals.demo.workshop import Workshop


@pytest.fixture(scope="module")
def recording() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDING.read_text())
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other shells word errors apart")
def test_the_script_reproduces_the_recording() -> None:
    assert dump(record()) == RECORDING.read_text()


def test_every_call_has_its_result(recording: dict[str, Any]) -> None:
    messages = recording["messages"]
    called = [c["id"] for m in messages for c in m.get("tool_calls", ())]
    answered = [m["tool_call_id"] for m in messages if m["role"] == "tool"]
    assert called == answered
    assert len(set(called)) == len(called)
    assert all(
        json.loads(c["function"]["arguments"]) for m in messages for c in m.get("tool_calls", ())
    )


def test_it_fails_on_the_way_and_ends_solved(recording: dict[str, Any]) -> None:
    results = [m["content"] for m in recording["messages"] if m["role"] == "tool"]
    assert sum("exit code 1]" in text or text.startswith("ERROR") for text in results) >= 6
    whole_suite = [text for text in results if "Ran 10 tests" in text]
    assert "FAILED" in whole_suite[0]
    assert whole_suite[-1].endswith("OK\n[Command finished with exit code 0]")
    assert "tool_calls" not in recording["messages"][-1]


def test_nothing_in_it_names_a_machine(recording: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(recording)
    assert str(Path(sys.executable).parent) not in text
    assert tmp_path.parts[1] + "/" not in text


def test_tools_tell_their_errors(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    replace = {"command": "str_replace", "path": "/repo/README.md", "new_str": "x"}
    assert shop.call("str_replace_editor", {**replace, "old_str": "tally"}).startswith(
        "ERROR: No replacement was performed. Multiple occurrences"
    )
    assert "did not appear verbatim" in shop.call(
        "str_replace_editor", {**replace, "old_str": "nowhere"}
    )
    assert shop.call("bash", {"command": "exit 3"}) == "[Command finished with exit code 3]"


@pytest.mark.model
def test_it_fits_the_embedded_model(recording: dict[str, Any], embedded_gguf: Path) -> None:
    from transformers import AutoTokenizer

    from leyline_agent.serving.render import ChatRenderer

    tokenizer = AutoTokenizer.from_pretrained(
        str(embedded_gguf.parent), gguf_file=embedded_gguf.name
    )
    tokens = ChatRenderer(tokenizer).render(recording["messages"], recording["tools"])
    assert 6_000 <= len(tokens) <= 7_200
