"""A run's folder: what is written, what a kill leaves, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_runs import config_of

from leyline_evals.solve.config import Cell, RunConfig, cells, digest_of
from leyline_evals.solve.driver import Ended, StepRecord
from leyline_evals.solve.errors import CorruptRun, EvalError
from leyline_evals.solve.folder import RunFolder, Sitting
from leyline_evals.solve.rows import EpisodeRow, rereads
from leyline_evals.solve.toy import Sums


def row(cell: Cell, ended: Ended = Ended.RESOLVED, attempt: int = 1) -> EpisodeRow:
    steps = [StepRecord(number=1, prompt=10, prefilled=10, ttft_ms=5.0)]
    return EpisodeRow.of(cell, ended, steps, attempt=attempt)


def test_the_plan_has_every_episode_once_and_pairs_beside_each_other() -> None:
    config = config_of(Sums(num_tasks=5), seeds=3)
    plan = list(cells(config))
    assert len(set(plan)) == len(plan) == config.size == 45
    for start in range(0, 45, 3):
        together = plan[start : start + 3]
        assert len({(cell.task, cell.seed) for cell in together}) == 1
        assert {cell.arm for cell in together} == set(config.arms)
    first = Counter(plan[start].arm.name for start in range(0, 45, 3))
    assert set(first.values()) == {5}, "every arm goes first as often as any other"
    assert [cell.seed for cell in plan] == sorted(cell.seed for cell in plan)


def test_a_run_is_read_as_it_was_written(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    again = RunFolder.open(folder.path)
    assert again.config == folder.config
    assert again.file.sha256 == folder.config.digest
    first, second, *_ = cells(folder.config)
    folder.add(row(first))
    folder.add(row(second, Ended.ERROR))
    assert [one.ended for one in again.rows().values()] == [Ended.RESOLVED, Ended.ERROR]
    assert again.rows()[first.arm.name, first.task, first.seed] == row(first)


def test_what_was_registered_cannot_be_changed(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    path = folder.path / "run.json"
    held = json.loads(path.read_text())
    held["config"]["registration"]["alpha"] = 0.2
    path.write_text(json.dumps(held))
    with pytest.raises(CorruptRun, match="not the one that was registered"):
        RunFolder.open(folder.path)


def test_a_run_of_an_earlier_leyline_is_still_the_one_that_was_registered(
    planned: Callable[..., Any],
) -> None:
    """A config that lacks a field which came later means its default, and has its own digest."""
    folder, _ = planned()
    path = folder.path / "run.json"
    held = json.loads(path.read_text())
    del held["config"]["model"]["cells"]
    held["sha256"] = digest_of(held["config"])
    path.write_text(json.dumps(held))
    again = RunFolder.open(folder.path)
    assert again.config == folder.config
    assert again.file.sha256 != folder.file.sha256


def test_a_line_cut_off_by_a_kill_is_left_out_and_cut(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    first, second, *_ = cells(folder.config)
    folder.add(row(first))
    path = folder.path / "episodes.jsonl"
    with path.open("a") as file:
        file.write(row(second).model_dump_json()[:40])
    assert len(folder.rows()) == 1
    folder.sit(Sitting(number=1, started="now", workers=1))
    folder.add(row(second))
    assert len(folder.rows()) == 2
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("not json\n", r"line 2: not what a run writes \(Invalid JSON: "),
        ('{"arm":"keep_all","task":"sum-0","seed":1}\n', r"line 2: .*ended"),
        ('{"arm":"keep_all","task":"other","seed":1,"ended":"resolved"}\n', "not of this run"),
    ],
)
def test_a_damaged_line_is_told_and_nothing_is_counted(
    planned: Callable[..., Any], line: str, says: str
) -> None:
    folder, _ = planned()
    folder.add(row(next(cells(folder.config))))
    with (folder.path / "episodes.jsonl").open("a") as file:
        file.write(line)
    with pytest.raises(CorruptRun, match=says):
        folder.rows()


def test_an_episode_counted_twice_is_told(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    cell = next(cells(folder.config))
    folder.add(row(cell, Ended.ERROR))
    folder.add(row(cell, attempt=2))
    assert folder.rows()[cell.arm.name, cell.task, cell.seed].attempt == 2
    folder.add(row(cell, attempt=3))
    with pytest.raises(CorruptRun, match="line 3: this episode stands there twice"):
        folder.rows()


@pytest.mark.parametrize("text", ["", "{", '{"format":"leyline-replay"}', "\xff"])
def test_a_damaged_config_is_told(planned: Callable[..., Any], text: str) -> None:
    folder, _ = planned()
    (folder.path / "run.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptRun, match=r"run\.json"):
        RunFolder.open(folder.path)


def test_no_run_and_no_room_for_one_are_told(planned: Callable[..., Any], tmp_path: Path) -> None:
    folder, _ = planned()
    with pytest.raises(EvalError, match="holds no run"):
        RunFolder.open(tmp_path / "nothing")
    with pytest.raises(EvalError, match="not an empty folder"):
        RunFolder.create(folder.path, folder.config)
    (tmp_path / "file").write_text("")
    with pytest.raises(EvalError, match="not an empty folder"):
        RunFolder.create(tmp_path / "file", folder.config)


HOLD = """
import sys, time
from pathlib import Path
from leyline_evals.solve.folder import RunFolder
with RunFolder.open(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_run_one_folder(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    words = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(EvalError, match=f"another process .pid {holder.pid} since"),
            folder.locked(),
        ):
            pass
        holder.kill()
    with folder.locked():
        pass


@pytest.mark.parametrize("attempts", [(0, 0, 1), (0, 1, 1), (0, 0, 1, 1, 1)])
def test_what_was_left_half_done_goes_and_what_failed_is_kept(
    planned: Callable[..., Any], attempts: tuple[int, ...]
) -> None:
    """Each attempt is begun behind so many failed ones; one that is killed adds none."""
    folder, _ = planned()
    cell = next(cells(folder.config))
    for number, failed in enumerate(attempts):
        (folder.begin(cell, failed) / "note").write_text(f"{number}")
    path = folder.episode(cell)
    last_of_first = attempts.count(0) - 1
    assert (path / "note").read_text() == f"{len(attempts) - 1}"
    assert (path.with_name(f"{path.name}.failed-1") / "note").read_text() == f"{last_of_first}"
    assert len(list(path.parent.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_told(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    cell = next(cells(folder.config))
    (folder.path / "episodes").write_text("")
    with pytest.raises(EvalError, match=r"1: cannot be made anew: Not a directory"):
        folder.begin(cell, 0)


def test_tasks_with_odd_names_have_folders_of_their_own(planned: Callable[..., Any]) -> None:
    folder, _ = planned()
    arm = folder.config.arms[0]
    odd = ["a/b", "a b", "../a", "a" * 300, "a" * 301]
    paths = {folder.episode(Cell(task, arm, 1)) for task in odd}
    assert len(paths) == len(odd)
    for path in paths:
        assert path.resolve().is_relative_to(folder.path.resolve())
        path.mkdir(parents=True)


def test_a_plan_says_nothing_twice() -> None:
    config = config_of(Sums())
    with pytest.raises(ValueError, match="a seed stands in the plan twice"):
        RunConfig.model_validate(config.model_dump() | {"seeds": (1, 1)})


def test_reads_count_again_only_where_nothing_was_written_between() -> None:
    steps = [
        StepRecord(number=1, reads=("a", "b")),
        StepRecord(number=2, reads=("a",)),
        StepRecord(number=3, writes=("a",)),
        StepRecord(number=4, reads=("a", "b")),
        StepRecord(number=5, reads=("a",), writes=("b",)),
    ]
    assert rereads(steps) == 3
