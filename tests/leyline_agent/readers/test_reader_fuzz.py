"""Damaged records: whatever is wrong with them, readers raise TrajectoryError or cope."""

import json
import random

import pytest

from leyline_agent.edit import check
from leyline_agent.errors import TrajectoryError
from leyline_agent.message import digest
from leyline_agent.readers import read_text

JUNK = [
    None,
    True,
    0,
    -1.5,
    "",
    "junk",
    [],
    {},
    [None],
    ["x"],
    [{}],
    {"x": 1},
    [[]],
    [{"role": "user"}],
]


def places(value, path=()):
    """The path of every value inside a JSON value."""
    inside = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in inside:
        yield (*path, key)
        yield from places(item, (*path, key))


def damaged(record, rng):
    """The record with a few values replaced by junk, removed, or swapped for one another."""
    for path in rng.sample(list(places(record)), k=rng.choice([1, 1, 2, 4])):
        parent = record
        try:
            for key in path[:-1]:
                parent = parent[key]
            if rng.random() < 0.3:
                del parent[path[-1]]
            else:
                parent[path[-1]] = json.loads(json.dumps(rng.choice(JUNK)))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took this place away
    return record


@pytest.mark.parametrize("seed", range(20))
def test_damaged_records_raise_only_trajectory_errors(sample_texts, seed):
    rng = random.Random(seed)
    for text in sample_texts.values():
        for _ in range(20):
            record = damaged(json.loads(text), rng)
            try:
                recordings = list(read_text(json.dumps(record)))
            except TrajectoryError:
                continue
            for recording in recordings:
                use(recording)


def use(recording):
    """What everything downstream does with a run."""
    trajectory = recording.trajectory()
    trajectory.tokens()
    assert len([digest(message) for message in recording.messages]) == len(trajectory.messages)
    edits = [r.replace("stub") for r in trajectory.tool_results[:1]]
    assert len(trajectory.edited(check(edits, trajectory.messages)).messages) == len(
        recording.messages
    )
