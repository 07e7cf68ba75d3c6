"""Workloads: what is read, what is skipped and why."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.errors import TrajectoryError
from leyline_evals.replay.workload import Workload


def test_runs_come_in_order_with_their_turns(runs_file: Callable[..., Path]) -> None:
    path = runs_file(3, 5)
    runs = list(Workload([path]))
    assert [(run.id, run.number, len(run.turns)) for run in runs] == [
        ("run 3", 0, 3),
        ("run 5", 1, 5),
    ]
    assert [runs[0].recording.messages[i]["role"] for i in runs[0].turns] == ["assistant"] * 3
    assert len(runs[0].prompt(runs[0].turns[1])) == runs[0].turns[1]


def test_the_limit_counts_over_all_files(runs_file: Callable[..., Path]) -> None:
    files = [runs_file(2, 3, name="a.jsonl"), runs_file(4, 5, name="b.jsonl")]
    assert [run.id for run in Workload(files, limit=3)] == ["run 2", "run 3", "run 4"]
    assert len(list(Workload(files))) == 4


def test_a_greeting_is_no_turn(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    messages = [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    path.write_text(json.dumps(messages))
    [run] = Workload([path])
    assert run.turns == (2,)
    assert run.id == "run, run-1"


def test_bad_records_are_skipped_with_the_reason(runs_file: Callable[..., Path]) -> None:
    path = runs_file(3)
    silent = {"messages": [{"role": "user", "content": "q"}], "id": "asked"}
    with path.open("a") as file:
        file.write('{"messages": [\n' + json.dumps({"foo": 1}) + "\n" + json.dumps(silent) + "\n")
    workload = Workload([path])
    for _ in range(2):  # reading again does not skip twice
        assert [run.id for run in workload] == ["run 3"]
        malformed, unknown, asked = workload.skipped
    assert "line 2" in malformed.reason
    assert "malformed JSON" in malformed.reason
    assert "line 3" in unknown.reason
    assert "no reader recognises" in unknown.reason
    assert asked.reason == "asked: no model call in it"
    assert {one.where for one in workload.skipped} == {str(path)}


def test_gzip_is_read(runs_file: Callable[..., Path], tmp_path: Path) -> None:
    zipped = tmp_path / "runs.jsonl.gz"
    zipped.write_bytes(gzip.compress(runs_file(2, 3).read_bytes()))
    assert len(list(Workload([zipped]))) == 2


def test_a_file_that_ends_early_gives_what_came_before(
    runs_file: Callable[..., Path], tmp_path: Path
) -> None:
    text = runs_file(2, 3).read_bytes() + random.Random(1).randbytes(50_000).hex().encode()
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(text)[:30_000])
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    workload = Workload([cut, empty, runs_file(4, name="more.jsonl")])
    assert [run.id for run in workload] == ["run 2", "run 3", "run 4"]
    assert [one.where for one in workload.skipped] == [str(cut), str(empty)]
    assert "truncated gzip" in workload.skipped[0].reason


def test_a_file_that_cannot_be_opened_stops_all(
    runs_file: Callable[..., Path], tmp_path: Path
) -> None:
    for path, said in ((tmp_path / "none", "cannot be opened"), (tmp_path, "a folder")):
        with pytest.raises(TrajectoryError, match=said):
            next(iter(Workload([runs_file(2), path])))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be opened"),
        ("", "empty"),
        ("not json\n", "malformed JSON"),
        ('{"foo": 1}\n', "nothing to replay: .*no reader recognises"),
        ('{"messages": [{"role": "user", "content": "q"}]}\n', "nothing to replay: .*no model"),
    ],
)
def test_a_file_with_nothing_to_replay(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "runs.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrajectoryError, match=said):
        list(Workload([path]))
