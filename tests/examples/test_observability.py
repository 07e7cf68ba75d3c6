"""examples/observability.py, run as its users run it."""

import subprocess
import sys
from pathlib import Path

from leyline_agent.cli.story import story

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "observability.py"


def test_it_shows_spans_edits_and_the_journal(tmp_path):
    journal = tmp_path / "journal.jsonl"
    done = subprocess.run(
        [sys.executable, EXAMPLE, journal], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    told = story(journal)
    lines = done.stdout.splitlines()
    assert lines[0].rstrip() == "agent"
    chats = [line for line in lines if line.startswith("  chat scripted input_tokens ")]
    assert len(chats) == told.totals.turns == 6
    edits = [line for line in lines if line.startswith("    · leyline.edit policy keep_last")]
    assert len(edits) == told.totals.edits > 0
    assert f"the last prompt: {told.turns[-1].prompt} tokens" in done.stdout
