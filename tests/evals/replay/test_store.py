"""The file beside a report: written as runs are through, read to resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from leyline_agent.readers import Recording
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.outputs import beside
from leyline_evals.replay.records import ArmRun, Config, Ended, FidelityRow, TurnRow
from leyline_evals.replay.store import Store
from leyline_evals.replay.workload import Run

CONFIG = Config(policy="keep_all", model="tiny")


def run(number: int = 0) -> Run:
    return Run("f", number, Recording("r", "openai-chat", ({"role": "user", "content": "q"},)))


def played(arm: Arm = Arm.REPAIR, number: int = 0) -> ArmRun:
    row = TurnRow(turn=1, prompt=7, exact=3, prefilled=4, ttft_ms=1.5, reasons={"asked": 2})
    near = FidelityRow(turn=1, tokens=3, kl=0.1, top1=1.0, floor_kl=0.0, floor_top1=1.0)
    return ArmRun(
        file="f",
        number=number,
        id="r",
        format="openai-chat",
        arm=arm,
        messages=1,
        turns=2,
        rows=[row],
        ended=Ended(kind="ContextOverflow", detail="too long"),
        fidelity=[near],
    )


def test_it_lies_beside_the_report() -> None:
    assert beside(Path("a/out.json")) == Path("a/out.runs.jsonl")
    assert beside(Path("out")) == Path("out.runs.jsonl")


def test_what_is_added_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    store = Store(path, CONFIG)
    store.add([played(Arm.REPAIR), played(Arm.FORGET, number=1)])
    again = Store(path, CONFIG, resume=True)
    assert len(again) == 2
    assert again.find(run(), Arm.REPAIR) == played(Arm.REPAIR)
    assert again.find(run(1), Arm.FORGET) == played(Arm.FORGET, number=1)
    assert again.find(run(), Arm.FORGET) is None


def test_without_resume_it_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Store(path, CONFIG).add([played()])
    assert len(Store(path, CONFIG)) == 0
    assert len(path.read_text().splitlines()) == 1


def test_resuming_nothing_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert len(Store(path, CONFIG, resume=True)) == 0
    assert json.loads(path.read_text())["format"] == "leyline-replay-runs"


def test_half_a_line_is_left_out_and_gone(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    Store(path, CONFIG).add([played(Arm.REPAIR), played(Arm.FORGET)])
    path.write_text(path.read_text()[:-20])  # killed while writing
    store = Store(path, CONFIG, resume=True)
    assert store.find(run(), Arm.REPAIR) is not None
    assert store.find(run(), Arm.FORGET) is None
    store.add([played(Arm.FORGET)])
    assert len(Store(path, CONFIG, resume=True)) == 2


@pytest.mark.parametrize("resume", [True, False])
def test_a_disk_full_at_the_start_costs_nothing(
    tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]], resume: bool
) -> None:
    path = tmp_path / "x.jsonl"
    Store(path, CONFIG).add([played(Arm.REPAIR), played(Arm.FORGET)])
    held = path.read_bytes()
    room = 10 if not resume else len(held) // 2
    with full_disk(room), pytest.raises(ReplayError, match="cannot be written"):
        Store(path, CONFIG, resume=resume)
    assert path.read_bytes() == held
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text.replace("keep_all", "keep_last"), "another|other options"),
        (lambda text: "{}\n" + text, "line 1: not of a replay"),
        (lambda text: "", "line 1: not of a replay"),
        (lambda text: text + "{}\n", "line 3: not of a replay"),
        (lambda text: text + '{"rows"\n', "line 3: not of a replay"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, damage: object, said: str) -> None:
    path = tmp_path / "x.jsonl"
    Store(path, CONFIG).add([played()])
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ReplayError, match=said):
        Store(path, CONFIG, resume=True)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReplayError, match="line 1: not of a replay"):
        Store(path, CONFIG, resume=True)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ReplayError, match="cannot be written"):
        Store(tmp_path, CONFIG)


def test_nothing_is_kept_without_a_file() -> None:
    store = Store(None, CONFIG)
    store.add([played()])
    assert store.find(run(), Arm.REPAIR) == played()
