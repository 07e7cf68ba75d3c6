"""Sittings: every planned episode once, whatever happens in between."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline_agent.readers import read
from leyline_evals.solve import words
from leyline_evals.solve.config import Cell, cells
from leyline_evals.solve.driver import Ended, Limits, Model, Outcome, Record, StepRecord, Task
from leyline_evals.solve.errors import EvalError, ModelFailed
from leyline_evals.solve.folder import RunFolder
from leyline_evals.solve.rows import EpisodeRow
from leyline_evals.solve.runner import Sat, Silent, Sitter, tasks_of
from leyline_evals.solve.scripted import Scripted
from leyline_evals.solve.toy import Sums

Planned = Callable[..., Any]


def sitter(folder: RunFolder, driver: Any, **options: Any) -> Sitter:
    return Sitter(folder, driver, tasks_of(driver, folder), Scripted(), **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_episode_is_run_and_written_down(planned: Planned) -> None:
    folder, driver = planned(num_tasks=3)
    sat = sitter(folder, driver).run(workers=3)
    assert sat == Sat(done=18, errors=0, left=0)
    rows = folder.rows()
    assert len(lines(folder.path / "episodes.jsonl")) == len(rows) == 18
    for cell in cells(folder.config):
        row = rows[cell.arm.name, cell.task, cell.seed]
        path = folder.episode(cell)
        steps = lines(path / "steps.jsonl")
        assert len(steps) == row.steps == 4
        assert sum(step.get("prompt", 0) for step in steps) == row.prompt
        assert (path / "patch.diff").read_text().startswith("+")
        (recording,) = read(path / "journal.jsonl")
        assert len(recording.messages) == 9
        assert row.prompt == row.exact + row.spliced + row.recomputed + row.prefilled
        assert row.wall_seconds >= row.model_seconds + row.tool_seconds
    plain = [row for row in rows.values() if row.arm.endswith("@plain")]
    assert all(row.exact == row.spliced == 0 < row.edits for row in plain)
    repaired = [row for row in rows.values() if row.arm.endswith("@repair")]
    assert all(row.spliced > 0 and row.modes == {"repair": 2} for row in repaired)


def test_the_arms_solve_the_same_by_the_same_seed(planned: Planned) -> None:
    """The script is the same in each arm; only what the arms do with the prompt differs."""
    folder, driver = planned(num_tasks=6, wrong=0.5)
    sitter(folder, driver).run(workers=2)
    by_cell: dict[tuple[str, int], set[bool]] = {}
    for row in folder.rows().values():
        by_cell.setdefault((row.task, row.seed), set()).add(row.solved)
    assert all(len(found) == 1 for found in by_cell.values())
    assert {solved for (solved,) in by_cell.values()} == {True, False}


def test_an_episode_that_raises_stops_no_other(planned: Planned) -> None:
    folder, driver = planned(num_tasks=3, broken=["sum-1"])
    sat = sitter(folder, driver).run(workers=2)
    assert sat == Sat(done=18, errors=6, left=6)
    failed = [row for row in folder.rows().values() if not row.counts]
    assert {row.task for row in failed} == {"sum-1"}
    assert failed[0].detail == "OSError: the disk of sum-1 is broken"
    assert failed[0].steps == 1, "the reply that was asked for is recorded all the same"
    cell = next(cell for cell in cells(folder.config) if cell.task == "sum-1")
    assert "Traceback" in (folder.episode(cell) / "error.txt").read_text()
    assert sitter(folder, driver).run(workers=2) == Sat(done=0, errors=0, left=6)
    mended = Sums(**{**driver.options, "broken": []})
    assert sitter(folder, mended, retry_errors=True).run(2) == Sat(done=6, errors=0, left=0)
    assert {row.attempt for row in folder.rows().values()} == {1, 2}
    beside = folder.episode(cell).with_name(f"{cell.seed}.failed-1")
    assert (beside / "error.txt").exists()


@pytest.mark.usefixtures("heeding")
def test_a_retry_that_is_killed_is_retried(planned: Planned) -> None:
    folder, driver = planned(num_tasks=1, seeds=1, broken=["sum-0"])
    assert sitter(folder, driver).run(workers=1).errors == 3
    mended = Sums(**{**driver.options, "broken": []})
    with pytest.raises(KeyboardInterrupt):
        sitter(folder, mended, retry_errors=True, progress=Interrupting(2)).run(workers=1)
    assert sitter(folder, mended, retry_errors=True).run(1) == Sat(done=3, errors=0, left=0)
    for path in map(folder.episode, cells(folder.config)):
        assert "Traceback" in (path.with_name("1.failed-1") / "error.txt").read_text()


class Misbehaving(Sums):
    """A driver whose episodes end as `do` says."""

    def __init__(self, do: Callable[[Model], Outcome], **options: Any) -> None:
        super().__init__(**options)
        self.do = do

    def run(
        self, task: Task, seed: int, model: Model, limits: Limits, folder: Path, record: Record
    ) -> Outcome:
        return self.do(model)


def endless(model: Model) -> Outcome:
    messages = [{"role": "user", "content": "go"}]
    while True:
        messages += [model(messages), {"role": "user", "content": "and now?"}]


def exits(model: Model) -> Outcome:
    sys.exit("the tool took the process for its own")


def fails(model: Model) -> Outcome:
    raise ModelFailed("503: overloaded")


def unwritable(model: Model) -> Outcome:
    return Outcome(ended=Ended.RESOLVED, patch="half a character: \ud800")


@pytest.mark.parametrize(
    ("do", "ended", "detail"),
    [
        (endless, Ended.LIMIT, "10 steps are over"),
        (exits, Ended.ERROR, "SystemExit: the tool took the process for its own"),
        (fails, Ended.ERROR, "ModelFailed: 503: overloaded"),
        (unwritable, Ended.ERROR, "UnicodeEncodeError: .*surrogates not allowed"),
    ],
)
def test_however_a_driver_ends_it_is_one_row(
    planned: Planned, do: Callable[[Model], Outcome], ended: Ended, detail: str
) -> None:
    folder, driver = planned(num_tasks=1, seeds=1)
    mean = Misbehaving(do, **driver.options)
    sitter(folder, mean).run(workers=2)
    rows = list(folder.rows().values())
    assert [row.ended for row in rows] == [ended] * 3
    assert all(re.fullmatch(detail, row.detail) for row in rows)


def test_time_that_is_up_begins_no_episode_but_the_first(planned: Planned) -> None:
    folder, driver = planned(num_tasks=4, delay=0.02)
    for number in range(1, 4):
        assert sitter(folder, driver, number=number, seconds=0.001).run(1).done == 1
    rows = list(folder.rows().values())
    assert [row.sitting for row in rows] == [1, 2, 3]
    assert sitter(folder, driver, seconds=3600).run(4) == Sat(done=21, errors=0, left=0)


def test_no_episode_begins_that_would_end_too_late(planned: Planned) -> None:
    folder, driver = planned(num_tasks=4)
    for cell, took in zip(cells(folder.config), (1.0, 1.0, 100.0), strict=False):
        folder.add(EpisodeRow.of(cell, Ended.RESOLVED, [], wall_seconds=took))
    assert sitter(folder, driver, seconds=50.0).run(1).done == 1, "one took 100 seconds"


def slow(model: Model) -> Outcome:
    messages = [{"role": "user", "content": "go"}]
    while True:
        messages += [model(messages), {"role": "user", "content": "and now?"}]
        time.sleep(0.15)


def test_what_runs_past_the_time_is_ended_and_run_again(planned: Planned) -> None:
    """All but the first, which ends by its limit of ten steps."""
    folder, driver = planned(num_tasks=1, seeds=1)
    sat = sitter(folder, Misbehaving(slow, **driver.options), seconds=0.75).run(workers=3)
    assert sat == Sat(done=1, errors=0, left=2, cut=2)
    assert "2 episodes were under way when the time was up" in " ".join(words.sat(Path(), 3, sat))
    [row] = folder.rows().values()
    assert row.ended is Ended.LIMIT
    assert row.key[0] == next(cells(folder.config)).arm.name
    assert sitter(folder, driver).run(workers=1) == Sat(done=2, errors=0, left=0)
    assert len(lines(folder.path / "episodes.jsonl")) == 3


class Interrupting(Silent):
    """Presses Ctrl-C at a step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, cell: Cell, record: StepRecord) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def heeding() -> Iterator[None]:
    """Ctrl-C is heeded, also where this process was started in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding")
def test_what_ctrl_c_interrupts_is_run_again(planned: Planned) -> None:
    folder, driver = planned(num_tasks=3, delay=0.01)
    with pytest.raises(KeyboardInterrupt):
        sitter(folder, driver, progress=Interrupting(9)).run(workers=2)
    done = len(folder.rows())
    assert 0 < done < 18
    assert not [one for one in threading.enumerate() if one.name.startswith("leyline-eval")]
    assert sitter(folder, driver).run(workers=2) == Sat(done=18 - done, errors=0, left=0)
    assert len(lines(folder.path / "episodes.jsonl")) == 18


class Spoiling(Silent):
    """Puts something in the way of the rows once a sitting is under way."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.path / "episodes.jsonl"

    def begun(self, cell: Cell) -> None:
        self.path.mkdir(exist_ok=True)


def test_a_row_that_cannot_be_written_ends_the_sitting(planned: Planned) -> None:
    folder, driver = planned(num_tasks=3)
    with pytest.raises(EvalError, match=r"episodes\.jsonl: cannot be written"):
        sitter(folder, driver, progress=Spoiling(folder)).run(workers=2)
    assert len(list(folder.path.glob("episodes/*/*/*"))) < 18, "the others are not begun"


def test_tasks_that_changed_are_not_run(planned: Planned) -> None:
    folder, driver = planned(num_tasks=3)
    with pytest.raises(EvalError, match="task 'sum-0' of .* has changed"):
        tasks_of(Sums(**{**driver.options, "files": 4}), folder)
    with pytest.raises(EvalError, match="task 'sum-2' of .* is not there any more"):
        tasks_of(Sums(**{**driver.options, "num_tasks": 2}), folder)


RUN = """
import sys
from leyline_agent.cli import main
main(sys.argv[1:])
"""


def test_a_killed_sitting_loses_and_repeats_nothing(planned: Planned) -> None:
    """Killed over and over with signal 9, then gone on with to the end."""
    folder, _ = planned(num_tasks=6, delay=0.01)
    words = [sys.executable, "-c", RUN, "eval", "resume", str(folder.path), "--workers", "3"]
    rows = folder.path / "episodes.jsonl"
    for wanted in (4, 12):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as sitting:
            deadline = time.monotonic() + 60
            while not rows.exists() or len(rows.read_bytes().splitlines()) < wanted:
                assert sitting.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            sitting.kill()
    finished = [line for line in rows.read_text().split("\n")[:-1]]
    assert 12 <= len(finished) < 36
    subprocess.run(words, check=True, capture_output=True)
    assert rows.read_text().splitlines()[: len(finished)] == finished
    found = lines(rows)
    keys = [(row["arm"], row["task"], row["seed"]) for row in found]
    assert len(set(keys)) == len(keys) == folder.config.size == 36
    for cell in cells(folder.config):
        row = folder.rows()[cell.arm.name, cell.task, cell.seed]
        assert len(lines(folder.episode(cell) / "steps.jsonl")) == row.steps == 4
    assert [sitting.number for sitting in folder.sittings()] == [1, 2, 3]
