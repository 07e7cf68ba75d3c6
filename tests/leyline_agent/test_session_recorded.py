"""Recorded runs of real agents, turn by turn through a session."""

import gzip
import itertools
import json

import pytest

from leyline_agent import Session
from leyline_agent.message import digest
from leyline_agent.testing import DeterministicModel, MockAdapter

RUNS = 3


def recorded(folder, name):
    with gzip.open(folder / "trajectories" / f"{name}.jsonl.gz", "rt") as lines:
        for line in itertools.islice(lines, RUNS):
            yield json.loads(line)["messages"]


def turns(messages):
    """Places of assistant messages that answer something."""
    return [i for i, m in enumerate(messages) if m["role"] == "assistant" and i > 0]


@pytest.mark.parametrize("policy", ["keep_last:n=3", "truncate_older_than:n=2,max_chars=200"])
@pytest.mark.parametrize(
    "name", ["mini_swe_agent_pr_816", "openhands_llm_completions", "swe_agent_demos", "debug_gym"]
)
def test_recorded_runs(trajectories_dir, tmp_path, name, policy):
    edits = 0
    for number, messages in enumerate(recorded(trajectories_dir, name)):
        observations = "tool" if any(m["role"] == "tool" for m in messages) else "user"
        replies = [messages[place] for place in turns(messages)]
        adapter = MockAdapter(DeterministicModel(*replies))
        path = tmp_path / f"{number}.jsonl"
        session = Session(policy, adapter, observations=observations, journal=path)
        for place in turns(messages):
            before = session.view
            turn = session.begin(messages[:place])
            assert turn.commit.base_len == len(before)
            turn.finish(adapter.complete(turn.request))
        held = [digest(message) for message in session.history]
        assert held == [digest(message) for message in messages[: len(held)]]
        stats = session.stats()
        assert (stats.turns, stats.failed) == (len(replies), 0)
        assert {receipt.reason.value for receipt in session.receipts} == {"asked"}
        edits += stats.edits
        resumed = Session.resume(path, policy, adapter)
        assert (resumed.view, resumed.edits) == (session.view, session.edits)
    assert edits > 0
