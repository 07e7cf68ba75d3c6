"""What reports say, held against rows that are counted by hand."""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console
from toy_runs import config_of

from leyline_evals.solve import statistics, table, words
from leyline_evals.solve.backend import ModelConfig, Price
from leyline_evals.solve.config import Cell, cells
from leyline_evals.solve.driver import Ended, StepRecord
from leyline_evals.solve.errors import CorruptRun, EvalError
from leyline_evals.solve.figures import run_report
from leyline_evals.solve.folder import RunFolder, Sitting
from leyline_evals.solve.html import page
from leyline_evals.solve.picking import picked, rates_of
from leyline_evals.solve.policy_files import PolicyFile
from leyline_evals.solve.report import EvalReport, RunReport
from leyline_evals.solve.reporting import compared
from leyline_evals.solve.rows import EpisodeRow
from leyline_evals.solve.toy import Sums

Ends = Callable[[Cell], Ended]


def written(folder: RunFolder, ends: Ends, **told: Any) -> RunFolder:
    """The run with every episode ended as `ends` says, of two steps each."""
    for cell in cells(folder.config):
        spliced = 30 if cell.arm.mechanism.value == "repair" else 0
        step = {"prompt": 100 + spliced, "prefilled": 100, "spliced": spliced, "edits": spliced}
        steps = [
            StepRecord(number=1, ttft_ms=10.0, model_seconds=1.0, tool_seconds=0.9, **step),
            StepRecord(number=2, ttft_ms=30.0, model_seconds=1.0, tool_seconds=0.9, **step),
        ]
        fields = {"wall_seconds": 4.0, **told}
        folder.add(EpisodeRow.of(cell, ends(cell), steps, **fields))
    return folder


def made(path: Path, ends: Ends, tasks: int = 8, seeds: int = 2, **told: Any) -> RunReport:
    """The report of such a run."""
    folder = RunFolder.create(path / "run", config_of(Sums(num_tasks=tasks), seeds))
    return run_report(written(folder, ends, **told))


def mostly(cell: Cell) -> Ended:
    """keep_all solves the first two tasks, plain the first six, repair the first seven."""
    bound = {"prefix_cache": 2, "plain": 6, "repair": 7}[cell.arm.mechanism.value]
    number = int(cell.task.removeprefix("sum-"))
    return Ended.RESOLVED if number < bound else Ended.UNRESOLVED


def test_rates_and_costs_are_those_of_the_rows(tmp_path: Path) -> None:
    report = made(tmp_path, mostly)
    keep_all, plain, repair = report.arms
    assert [arm.solved for arm in report.arms] == [4, 12, 14]
    assert (keep_all.episodes, keep_all.rate) == (16, 0.25)
    assert (keep_all.low, keep_all.high) == statistics.wilson(4, 16)
    assert plain.prefilled_tokens == 16 * 200
    assert plain.prefilled_per_solved == 16 * 200 / 12
    assert repair.spliced_tokens == 16 * 60
    assert repair.wall_per_solved == pytest.approx(16 * 4 / 14)
    assert repair.ttft_p50 == pytest.approx(20)
    assert repair.ttft_turns == 32
    assert repair.overhead == pytest.approx(0.05)
    assert repair.cost is None
    assert report.due
    assert report.tasks[6].solved == {keep_all.arm: 0, plain.arm: 0, repair.arm: 2}


def test_the_registered_comparison_is_told_apart_and_the_others_corrected(tmp_path: Path) -> None:
    report = made(tmp_path, mostly)
    assert report.primary is not None
    assert (report.primary.first, report.primary.second) == ("keep_all", report.arms[2].arm)
    assert report.primary.difference == pytest.approx(5 / 8)
    assert report.primary.p == pytest.approx(2 / 2**5)
    assert (report.primary.gained, report.primary.lost) == (5, 0)
    assert report.primary.p_holm is None
    assert [one.p for one in report.secondary] == pytest.approx([2 / 2**4, 1.0])
    assert [one.p_holm for one in report.secondary] == pytest.approx([4 / 2**4, 1.0])


def test_prices_are_those_of_the_run(tmp_path: Path) -> None:
    config = config_of(Sums(num_tasks=8), 2)
    model = ModelConfig(name="scripted", price=Price(prompt=2, cached=1, reply=10))
    config = config.model_copy(update={"model": model})
    report = run_report(written(RunFolder.create(tmp_path / "run", config), mostly))
    assert report.arms[2].cost == pytest.approx(16 * (200 * 2 + 60 * 1) / 1e6)
    assert report.arms[2].cost_per_solved == pytest.approx(16 * 460 / 1e6 / 14)


def test_errors_are_in_no_figure_and_take_their_pairs_along(tmp_path: Path) -> None:
    def ends(cell: Cell) -> Ended:
        broken = cell.arm.mechanism.value == "repair" and cell.task in ("sum-2", "sum-3")
        return Ended.ERROR if broken else mostly(cell)

    report = made(tmp_path, ends)
    assert report.errors == 4
    assert report.due, "every episode was run"
    assert report.arms[2].episodes == 12
    assert report.arms[2].ended[Ended.ERROR] == 4
    assert report.primary is not None
    assert (report.primary.pairs, report.primary.tasks) == (12, 6)
    assert report.primary.first_rate == pytest.approx(4 / 12)
    assert any("4 episodes ended in an error" in note for note in report.notes)
    assert not any("run again" in note for note in report.notes)
    assert any(
        said.startswith("It is not final: 4 episodes in error") for said in words.found(report)
    )


def test_a_run_whose_errors_were_run_again_is_final_and_says_so(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=8), 2))
    first = next(cells(folder.config))
    folder.add(EpisodeRow.of(first, Ended.ERROR, []))
    report = run_report(written(folder, mostly, attempt=2))
    assert report.due
    assert report.retried == 48
    assert any("48 episodes were run again after an error" in note for note in report.notes)
    assert not any("not final" in said for said in words.found(report))


def always(ended: Ended) -> Ends:
    return lambda cell: ended


def slow(cell: Cell) -> Ended:
    late = cell.arm.mechanism.value == "plain" and cell.seed == 1
    return Ended.TIMEOUT if late else mostly(cell)


@pytest.mark.parametrize(
    ("ends", "told", "note"),
    [
        (always(Ended.UNRESOLVED), {}, "a floor effect: no arm solves 5%"),
        (always(Ended.RESOLVED), {}, "a ceiling effect"),
        (slow, {}, "ran out of time .*plain 50%.*part of the difference is the limit's"),
        (mostly, {"skipped": 2}, "32 edits or policies were not taken"),
        (mostly, {"wall_seconds": 20.0}, "81.0% of the time was neither"),
    ],
)
def test_what_a_reader_must_know_is_a_note(
    tmp_path: Path, ends: Ends, told: dict[str, Any], note: str
) -> None:
    assert re.search(note, " ".join(made(tmp_path, ends, **told).notes))


def printed(show: Callable[[Console], None]) -> list[str]:
    """The lines of a terminal of 80 columns."""
    console = Console(width=80, file=io.StringIO(), record=True)
    show(console)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_each_line_of_a_report_says_of_which_arm_it_is(tmp_path: Path) -> None:
    report = made(tmp_path, mostly, wall_seconds=40_000.0)
    lines = printed(lambda to: table.show(EvalReport(leyline="1", runs=[report]), to))
    told = " ".join(" ".join(lines).split())
    for number, arm in enumerate(report.arms, start=1):
        assert f"{number} {arm.arm}" in told
        mechanism = "keep_all" if number == 1 else arm.mechanism.value
        assert sum(line.startswith(f"{number} {mechanism} ") for line in lines) >= 3
    assert [line.split()[0:3] for line in lines if line[:3] in ("3 -", "2 -")] == [
        ["3", "-", "1"], ["2", "-", "1"], ["3", "-", "2"],
    ]  # fmt: skip
    assert not [line for line in lines if "\N{HORIZONTAL ELLIPSIS}" in line], "nothing is cut off"


def test_a_comparison_of_runs_numbers_its_arms_too(tmp_path: Path) -> None:
    folders = [
        written(RunFolder.create(tmp_path / name, config_of(Sums(num_tasks=8), 2)), mostly)
        for name in ("a", "b")
    ]
    found = compared(*folders)
    lines = printed(lambda to: table.show_comparison(found, to))
    assert [line.split()[:2] for line in lines if line[:2] in ("1 ", "2 ", "3 ")][-3:] == [
        ["1", "keep_all"], ["2", "plain"], ["3", "repair"],
    ]  # fmt: skip
    assert not [line for line in lines if "\N{HORIZONTAL ELLIPSIS}" in line], "nothing is cut off"


def test_what_is_not_known_yet_is_a_dash(tmp_path: Path) -> None:
    report = run_report(RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=8), 2)))
    lines = printed(lambda to: table.show(EvalReport(leyline="1", runs=[report]), to))
    assert not any("100%" in line for line in lines)
    assert any(re.fullmatch(r"1 keep_all +0 of 0 +- +- +.*", line) for line in lines)
    assert any(re.fullmatch(r"3 - 1 +0 +0 +- +- .*", line) for line in lines)
    assert "0% to 100%" not in page(EvalReport(leyline="1", runs=[report]))


def test_a_run_that_is_not_complete_is_a_look_in_between(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=8), 2))
    empty = run_report(folder)
    assert empty.primary is not None
    assert (empty.primary.difference, empty.arms[0].rate) == (None, None)
    folder.add(EpisodeRow.of(next(cells(folder.config)), Ended.RESOLVED, []))
    report = run_report(folder)
    assert not report.due
    assert "47 of 48 episodes are not run yet" in report.notes[0]


def test_arms_that_are_not_what_they_are_called_are_problems(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=2), 1))
    for cell in cells(folder.config):
        steps = [StepRecord(number=1, prompt=9, exact=9, reasons={"rope_kind": 3})]
        folder.add(EpisodeRow.of(cell, Ended.RESOLVED, steps, edits=3))
    plain, repair = run_report(folder).problems
    assert "9 tokens came from a cache all the same" in plain.replace("18", "9")
    assert repair.endswith("6 edits, and nothing was spliced (reasons: rope_kind 6)")


def carried_out(path: Path, modes: dict[str, int], reasons: dict[str, int]) -> RunReport:
    """The report of a run in which each REPAIR episode's edits were carried out so."""
    folder = RunFolder.create(path / "run", config_of(Sums(num_tasks=2), 1))
    told = {"edits": sum(modes.values()), "modes": modes, "reasons": reasons}
    for cell in cells(folder.config):
        more = told if cell.arm.mechanism.value == "repair" else {}
        steps = [StepRecord(number=1, prompt=9, prefilled=4, spliced=5, **more)]
        folder.add(EpisodeRow.of(cell, Ended.RESOLVED, steps))
    return run_report(folder)


def test_in_which_modes_edits_were_carried_out_is_told(tmp_path: Path) -> None:
    report = carried_out(tmp_path, {"repair": 41, "forget": 7}, {"evicted": 1, "cost_gate": 6})
    assert not [problem for problem in report.problems if "carried out" in problem]
    lines = printed(lambda to: table.show(EvalReport(leyline="1", runs=[report]), to))
    [line] = [line for line in lines if "cost_gate" in line]
    assert line.split(maxsplit=3) == [
        "3", "repair", "96", "repair 82, forget 14 (cost_gate 12, evicted 2)",
    ]  # fmt: skip
    text = page(EvalReport(leyline="1", runs=[report]))
    assert text.count("<td>repair 82, forget 14 (cost_gate 12, evicted 2)</td>") == 1


def test_an_arm_whose_edits_are_carried_out_otherwise_is_a_problem(tmp_path: Path) -> None:
    report = carried_out(tmp_path, {"repair": 3, "forget": 1}, {"cost_gate": 1})
    [problem] = [problem for problem in report.problems if "carried out" in problem]
    assert problem.endswith(
        "@repair: only 75% of its edits were carried out as its mechanism says: repair 6, forget 2 "
        "(cost_gate 2)"
    )


def test_what_changed_between_sittings_is_told(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=2), 1))
    for number, torch in ((1, "2.12"), (2, "2.13")):
        versions = {"torch": torch, "leyline": "1"}
        folder.sit(Sitting(number=number, started="", workers=number, versions=versions))
    notes = " ".join(run_report(folder).notes)
    assert "torch changed between sittings: 2.12, 2.13" in notes
    assert "leyline changed" not in notes
    assert "sittings ran 1 and 2 episodes at once" in notes


def test_two_runs_are_compared_over_what_both_have(tmp_path: Path) -> None:
    def run(name: str, tasks: int, ends: Ends, files: int = 3) -> RunFolder:
        config = config_of(Sums(num_tasks=tasks, files=files), 2)
        return written(RunFolder.create(tmp_path / name, config), ends)

    a, b = run("a", 6, always(Ended.UNRESOLVED)), run("b", 8, always(Ended.RESOLVED))
    found = compared(a, b)
    assert found.tasks == 6
    assert [one.difference for one in found.arms] == [1.0] * 3
    assert [one.p for one in found.arms] == pytest.approx([2 / 2**6] * 3)
    assert [one.p_holm for one in found.arms] == pytest.approx([3 * 2 / 2**6] * 3)
    assert any(note.startswith("driver.options") for note in found.notes)
    (only,) = compared(a, b, ["keep_all"]).arms
    assert (only.first, only.second) == ("a: keep_all", "b: keep_all")
    with pytest.raises(EvalError, match="no task in common; 6 have other contents"):
        compared(a, run("c", 8, mostly, files=2))


def test_arms_of_one_name_and_other_code_are_told_apart(tmp_path: Path) -> None:
    folders = []
    for name in ("a", "b"):
        files = (PolicyFile(name="./mine.py", path=f"/{name}/mine.py", sha256=name * 64),)
        config = config_of(Sums(num_tasks=2), 1, policy_files=files)
        folders.append(written(RunFolder.create(tmp_path / name, config), mostly))
    told = "policy file ./mine.py: other code in a than in b"
    assert told in compared(*folders).notes
    assert not any("policy file" in note for note in compared(folders[0], folders[0]).notes)


def test_a_pilot_picks_tasks_that_are_solved_sometimes(tmp_path: Path) -> None:
    def ends(cell: Cell) -> Ended:
        number = int(cell.task.removeprefix("sum-"))
        return Ended.RESOLVED if cell.seed <= number else Ended.UNRESOLVED

    folder = RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=5), 4))
    written(folder, ends)
    assert picked(folder, "keep_all", *rates_of("0.15,0.7")) == ["sum-1", "sum-2"]
    with pytest.raises(EvalError, match=r"keep_all solves no task at a rate from 60% to 70%"):
        picked(folder, "keep_all", 0.6, 0.7)
    for text in ("0.5", "0.7,0.1", "a,b", "0,2"):
        with pytest.raises(EvalError, match="write two rates"):
            rates_of(text)


def svgs(text: str) -> Iterable[ElementTree.Element]:
    for part in text.split("<svg ")[1:]:
        yield ElementTree.fromstring("<svg " + part.partition("</svg>")[0] + "</svg>")


def test_the_page_stands_alone_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    run = made(tmp_path, mostly)
    evil = "<script>alert(1)</script>"
    tasks = [task.model_copy(update={"task": evil}) for task in run.tasks]
    run = run.model_copy(update={"tasks": tasks, "run": evil, "notes": [evil]})
    text = page(EvalReport(leyline="1", runs=[run, run]))
    assert "<script" not in text
    assert "http" not in text
    assert run.sha256 in text
    drawn = list(svgs(text))
    assert len(drawn) == 10
    titles = [title.text or "" for svg in drawn for title in svg.iter("title")]
    assert any("6 of 16" in title or "4 of 16" in title for title in titles)


def test_the_page_of_a_run_without_episodes(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(), 1))
    text = page(EvalReport(leyline="1", runs=[run_report(folder)]))
    assert "No pair of episodes is finished yet" in text


def test_ten_thousand_episodes_take_less_than_ten_seconds(tmp_path: Path) -> None:
    """In seconds of this process: other processes are none of it."""
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(num_tasks=834), 4))
    draw = random.Random(0)
    with (folder.path / "episodes.jsonl").open("w") as file:
        for cell in cells(folder.config):
            ended = draw.choice([Ended.RESOLVED, Ended.UNRESOLVED, Ended.LIMIT])
            row = EpisodeRow.of(cell, ended, [], ttft_ms=[draw.random()] * 30, wall_seconds=9.0)
            file.write(row.model_dump_json(exclude_defaults=True) + "\n")
    started = time.process_time()
    report = run_report(folder)
    page(EvalReport(leyline="1", runs=[report]))
    assert report.finished == 10_008
    assert time.process_time() - started < 10


def test_a_corrupt_folder_has_no_report(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", config_of(Sums(), 1))
    (folder.path / "sittings.jsonl").write_text('{"number": 0}\n')
    with pytest.raises(CorruptRun, match=r"sittings\.jsonl, line 1"):
        run_report(folder)
