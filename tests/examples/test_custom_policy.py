"""examples/custom_policy.py, run as its users run it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_agent.policy import parse

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "custom_policy.py"
RUN = ROOT / "evals" / "leyline_evals" / "demo" / "recording.json"


def test_each_of_its_policies_cuts_something():
    done = subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    told = re.findall(
        r"^(\w+).*: (\d+) edits, prompts ([\d,]+) -> ([\d,]+) tokens$", done.stdout, re.M
    )
    assert [name for name, *_ in told] == [
        "drop_listings", "cap_lines", "mask_old", "describe_old", "keep_last",
    ]  # fmt: skip
    for _, edits, before, after in told:
        assert int(edits) > 0
        assert int(after.replace(",", "")) < int(before.replace(",", ""))


def test_its_policies_are_named_on_the_command_line(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(RUN), "--policy", f"{EXAMPLE}:DropListings:after=2", "--why"])
    assert ended.value.code == 0
    assert "by drop_listings" in capsys.readouterr().out
    assert parse(f"{EXAMPLE}:describe_old").name == "describe_old"


def test_inspect_asks_nobody(capsys):
    with pytest.raises(SystemExit):
        main(["inspect", str(RUN), "--policy", f"{EXAMPLE}:describe_old", "--why"])
    assert "describe_old wants a model asked, and inspect asks none" in capsys.readouterr().out
