"""Whole replays: figures, resuming, processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.errors import PolicyError, TrajectoryError
from leyline_evals.replay import play as play_module
from leyline_evals.replay import runner
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.records import ArmRun, Config
from leyline_evals.replay.report import ReplayReport
from leyline_evals.replay.runner import replay
from leyline_evals.replay.workload import Run, Workload


@pytest.fixture
def config(tiny_folder: Path) -> Config:
    return Config(
        policy="truncate_older_than:n=2,max_chars=20", model=str(tiny_folder), tokens_only=True
    )


def sums(report: ReplayReport) -> dict[Arm, tuple[int, int, int]]:
    return {
        arm: (one.prompt_tokens, one.reused_tokens, one.compute_tokens)
        for arm, one in report.arms.items()
    }


def test_the_arms_sum_up_their_runs(
    runs_file: Callable[..., Path], counting: Engines, config: Config
) -> None:
    played = replay(Workload([runs_file(4, 8)]), config, counting)
    assert list(played.report.arms) == list(ALL_ARMS)
    for arm, one in played.report.arms.items():
        rows = [row for run in played.results for row in run[arm].rows]
        assert one.turns == len(rows) == 12
        assert one.prompt_tokens == sum(row.prompt for row in rows)
        assert one.prompt_tokens == one.reused_tokens + one.recomputed_tokens + one.prefilled_tokens
        assert one.compute_tokens == sum(row.compute for row in rows)
    made = played.report.arms
    assert made[Arm.PREFIX_CACHE].compute_tokens == made[Arm.FORGET].compute_tokens
    assert made[Arm.AMORTIZE].compute_ratio is not None
    assert played.report.sooner_than is Arm.PREFIX_CACHE
    assert played.report.problems == played.report.notes == []
    assert [run.turns_done[Arm.REPAIR] for run in played.report.runs] == [4, 8]


def test_skipped_records_are_told(
    runs_file: Callable[..., Path], counting: Engines, config: Config
) -> None:
    path = runs_file(3)
    with path.open("a") as file:
        file.write('{"foo": 1}\n')
    report = replay(Workload([path]), config, counting).report
    assert len(report.runs) == 1
    [skipped] = report.skipped
    assert "line 2" in skipped.reason


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_resuming_plays_only_what_is_left(
    runs_file: Callable[..., Path],
    counting: Engines,
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: int,
) -> None:
    files, keep = [runs_file(3, 4)], tmp_path / "out.runs.jsonl"
    whole = replay(Workload(files), config, counting, keep=keep)
    lines = keep.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + 2 * len(ALL_ARMS)
    keep.write_text("".join(lines[: 1 + kept * len(ALL_ARMS)]))  # killed after `kept` runs
    again: list[str] = []

    def counted(run: Run, *arguments: object, **options: object) -> list[ArmRun]:
        again.append(run.id)
        return play_module.play(run, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "play", counted)
    resumed = replay(Workload(files), config, counting, keep=keep, resume=True)
    assert again == ["run 3", "run 4"][kept:]
    assert sums(resumed.report) == sums(whole.report)
    assert len(keep.read_text().splitlines()) == 1 + 2 * len(ALL_ARMS)


def test_resuming_with_more_arms_plays_those(
    runs_file: Callable[..., Path], counting: Engines, config: Config, tmp_path: Path
) -> None:
    files, keep = [runs_file(5)], tmp_path / "out.runs.jsonl"
    replay(Workload(files), config, counting, arms=[Arm.APPEND_ONLY], keep=keep)
    before = keep.read_text()
    both = replay(
        Workload(files),
        config,
        counting,
        arms=[Arm.APPEND_ONLY, Arm.REPAIR],
        keep=keep,
        resume=True,
    )
    assert list(both.report.arms) == [Arm.APPEND_ONLY, Arm.REPAIR]
    added = keep.read_text().removeprefix(before)
    assert [json.loads(line)["arm"] for line in added.splitlines()] == ["repair"]


def test_progress_is_told(
    runs_file: Callable[..., Path], counting: Engines, config: Config
) -> None:
    told: list[tuple[str, int, int | None]] = []

    class Told:
        def turn(self, run: Run, done: int, of: int) -> None:
            told.append((run.id, done, of))

        def run(self, run: Run, number: int) -> None:
            told.append((run.id, number, None))

    replay(Workload([runs_file(2, 1)]), config, counting, arms=[Arm.REPAIR], progress=Told())
    assert told == [
        ("run 2", 1, 2),
        ("run 2", 2, 2),
        ("run 2", 1, None),
        ("run 1", 1, 1),
        ("run 1", 2, None),
    ]


def test_processes_give_the_same_figures(
    runs_file: Callable[..., Path], counting: Engines, config: Config, tmp_path: Path
) -> None:
    turns = [2, 5, 3, 6, 2, 4, 3, 2, 7, 3]
    keep = tmp_path / "out.runs.jsonl"
    alone = replay(Workload([runs_file(*turns)]), config, counting)
    pooled = replay(Workload([runs_file(*turns)]), config, counting, jobs=2, keep=keep)
    assert sums(pooled.report) == sums(alone.report)
    assert [run.id for run in pooled.report.runs] == [f"run {n}" for n in turns]
    kept = [json.loads(line) for line in keep.read_text().splitlines()[1:]]
    assert [line["turns"] for line in kept] == [n for n in turns for _ in ALL_ARMS]


def test_a_replay_that_cannot_start(
    runs_file: Callable[..., Path], counting: Engines, config: Config, tmp_path: Path
) -> None:
    files = [runs_file(2)]
    with pytest.raises(PolicyError, match="no policy named"):
        replay(Workload(files), config.model_copy(update={"policy": "kep_all"}), counting)
    with pytest.raises(ReplayError, match="no arms"):
        replay(Workload(files), config, counting, arms=[])
    with pytest.raises(TrajectoryError, match="cannot be opened"):
        replay(Workload([tmp_path / "none.jsonl"]), config, counting)


def test_with_a_model_the_first_token_is_timed(
    runs_file: Callable[..., Path], running: Engines, config: Config
) -> None:
    config = config.model_copy(update={"tokens_only": False})
    report = replay(Workload([runs_file(7, chars=400)]), config, running).report
    for one in report.arms.values():
        assert one.ttft_ms is not None
        assert 0 < one.ttft_ms.p50 <= one.ttft_ms.p99
        assert one.ttft_ms.n == one.turns == 7
    sooner = report.arms[Arm.AMORTIZE].sooner
    assert sooner is not None
    assert sooner.n == report.arms[Arm.AMORTIZE].turns_with_edits > 0
    assert report.machine.dtype == "float32"


def test_a_model_that_cannot_splice_is_a_problem(
    runs_file: Callable[..., Path],
    running: Engines,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from leyline_agent.receipt import Reason
    from leyline_agent.serving.engine import Engine

    of = Engine.of

    def refusing(*arguments: object, **options: object) -> Engine:
        engine = of(*arguments, **options)  # type: ignore[arg-type]
        engine.facts = replace(engine.facts, refusal=Reason.ROPE_KIND)
        return engine

    monkeypatch.setattr(Engine, "of", refusing)
    report = replay(Workload([runs_file(6)]), config, running, arms=[Arm.AMORTIZE]).report
    [problem] = report.problems
    assert "amortize spliced nothing" in problem
    assert "rope_kind" in problem
