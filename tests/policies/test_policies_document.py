"""docs/policies.md, held against the code."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from leyline_agent.edit import Edit
from leyline_agent.options import written
from leyline_agent.policy import Policy, as_policy, available, parse
from leyline_agent.trajectory import ToolCall, ToolResult, Trajectory

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "policies.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
ROWS = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]*)\|$", TEXT, re.M)

MESSAGES = [
    {"role": "user", "content": "task"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "a", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "file " * 99},
] * 9


# Options without which a policy cannot be made.
REQUIRED = {
    "pinned": "pinned:policy=keep_all",
    "when": "when:condition=turns>1,policy=keep_all",
}


def own_policies() -> list[str]:
    """The names of the policies that come with Leyline."""
    points = available().items()
    return [name for name, point in points if point.value.startswith("leyline_policies.")]


@pytest.fixture
def silent_log() -> Iterator[None]:
    """One snippet turns the log on."""
    logger = logging.getLogger("leyline")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.usefixtures("silent_log")
@pytest.mark.filterwarnings("ignore::leyline_agent.LeylineWarning")
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_make_a_policy_that_runs(number: int) -> None:
    names: dict[str, object] = {"__name__": f"snippet_{number}"}
    exec(compile(SNIPPETS[number], f"docs/policies.md snippet {number}", "exec"), names)
    made = [as_policy(value) for value in names.values() if _is_policy(value, number)]
    assert made
    for policy in made:
        policy.propose(Trajectory(messages=MESSAGES))


@pytest.mark.parametrize("kind", [Trajectory, ToolCall, ToolResult, Edit])
def test_what_a_policy_reads_is_documented(kind: type) -> None:
    table = re.split(rf"^\| of an? `{kind.__name__}` ", TEXT, flags=re.M)[1].split("\n\n")[0]
    documented = set(re.findall(r"`(\w+)(?:\([^`]*\))?`", table))
    fields = {field.name for field in dataclasses.fields(kind)}
    public = {name for name in (*vars(kind), *fields) if not name.startswith("_")}
    assert public - documented <= {"count_delta", "overlaps", "effective_mode"}


@pytest.mark.parametrize("runs", ["mini_swe_agent", "openhands"])
def test_every_policy_has_its_measured_row(runs: str) -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / f"policies_{runs}.json").read_text())
    [file] = found["files"]
    _, _, behind = TEXT.partition("### What each one costs")[2].partition(f"/{file}")
    table = behind.split("\n\n| ", 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| `(.+)` \| ([\d,]+) \|.* ([\d,]+) \|$", table, re.M)
    measured = [
        (row["policy"], f"{row['prompt_tokens'] / 1e3:,.0f}", f"{row['edits']:,}")
        for row in found["rows"]
    ]
    assert rows == measured
    assert set(own_policies()) <= {text.split(":")[0] for text, _, _ in rows}


def _is_policy(value: object, number: int) -> bool:
    """Whether a name of a snippet is a policy made there, or a class of policies defined there."""
    if isinstance(value, type):
        return issubclass(value, Policy) and value.__module__ == f"snippet_{number}"
    return isinstance(value, Policy)


def test_options_and_their_defaults_are_documented() -> None:
    documented_names = [name for name, _ in ROWS]
    assert sorted(documented_names) == sorted(own_policies())
    for name, options in ROWS:
        documented = dict(re.findall(r"`(\w+)(?:=([^`]*))?`", options))
        policy = parse(REQUIRED.get(name, name))
        assert list(documented) == [field for field in type(policy).model_fields if field != "mode"]
        for field, value in documented.items():
            assert not value or written({field: getattr(policy, field)})[field] == value
