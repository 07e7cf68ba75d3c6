"""The table and the page: what they say of a replay, and that nothing in a recording can act."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from leyline_evals.replay import html, table, words
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.records import Config
from leyline_evals.replay.report import ReplayReport
from leyline_evals.replay.runner import Played, replay
from leyline_evals.replay.workload import Workload

POLICY = "truncate_older_than:n=2,max_chars=20"


def printed(report: ReplayReport, width: int = 80) -> str:
    out = io.StringIO()
    table.show(report, Console(file=out, width=width))
    return out.getvalue()


@pytest.fixture
def counted(runs_file: Callable[..., Path], counting: Engines) -> Played:
    config = Config(policy=POLICY, model="tiny", tokens_only=True)
    return replay(Workload([runs_file(6, 9, chars=300)]), config, counting)


@pytest.fixture
def timed(runs_file: Callable[..., Path], running: Engines) -> Played:
    config = Config(policy=POLICY, model="tiny", fidelity_turns=1)
    return replay(Workload([runs_file(7, chars=300)]), config, running)


def test_the_table_fits_a_terminal_and_is_explained(counted: Played) -> None:
    shown = printed(counted.report)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in shown
    for arm in ALL_ARMS:
        # In two tables and in the legend.
        assert sum(line.split()[:1] == [arm.value] for line in lines) == 3
        assert words.ARMS[arm].split()[0] in shown
    assert "first token" not in shown
    for term in ("exact", "spliced", "recomputed", "prefilled", "compute", "hit rate"):
        assert re.search(rf"^  {term} +\w", shown, re.M)


def test_the_table_tells_times_and_fidelity(timed: Played) -> None:
    shown = printed(timed.report)
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("first token", "after an edit", "splice", "noise_floor", "edit_undone", "top-1"):
        assert word in shown
    assert "After an edit the first token came" in shown


def test_problems_notes_and_skipped_records_are_told(counted: Played) -> None:
    report = counted.report.model_copy(
        update={
            "problems": ["amortize spliced nothing"],
            "notes": ["the policy edited nothing"],
            "skipped": [{"where": "f", "reason": f"line {n}: [bold]bad[/]"} for n in range(9)],
        }
    )
    report = ReplayReport.model_validate(report.model_dump(warnings=False))
    shown = printed(report)
    assert "PROBLEM: amortize spliced nothing" in shown
    assert "note: the policy edited nothing" in shown
    assert "skipped 9 records" in shown
    assert "line 0: [bold]bad[/]" in shown
    page = html.page(Played(report, counted.results))
    assert "amortize spliced nothing" in page
    assert "line 8: [bold]bad[/]" in page


def test_what_was_seen_says_the_figures(timed: Played) -> None:
    report = timed.report
    amortize, repair = words.seen(report)
    figures = report.arms[Arm.AMORTIZE]
    assert figures.sooner is not None
    said = figures.sooner.p50 if figures.sooner.p50 >= 1 else 1 / figures.sooner.p50
    assert f"came {said:.1f} (" in amortize
    assert f"{figures.compute_tokens:,} prompt tokens" in amortize
    assert "with repair than with prefix_cache" in repair


def test_nothing_is_claimed_where_nothing_was_spliced(counted: Played) -> None:
    arms = {arm: one for arm, one in counted.report.arms.items() if not arm.splices}
    assert words.seen(counted.report.model_copy(update={"arms": arms})) == []
    alone = counted.report.model_copy(update={"sooner_than": None})
    assert words.seen(alone) == []


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (99_999, "99,999"),
        (100_000, "100.0 k"),
        (999_949, "999.9 k"),
        (999_950, "1.00 M"),
        (162_130_000, "162.13 M"),
    ],
)
def test_counts_are_short(number: int, shown: str) -> None:
    assert words.count(number) == shown


def test_the_page_stands_alone(timed: Played, counted: Played) -> None:
    for played in (timed, counted):
        page = html.page(played, "A title")
        assert "<title>A title</title>" in page
        assert not re.search(r"https?://|<script|src=|@import|url\(", page)
        for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
            ET.fromstring(drawing)
        for arm, one in played.report.arms.items():
            assert f"<td>{one.compute_tokens:,}</td>" in page
            assert arm.value in page


def test_the_page_draws_every_turn_of_every_arm(counted: Played) -> None:
    page = html.page(counted)
    assert page.count("<h2>run ") == 2
    for arm in ALL_ARMS:
        for turn in range(1, 10):
            assert f"{arm.value}, turn {turn}: " in page
    assert "Time to the first token" not in page


def test_the_page_draws_times(timed: Played) -> None:
    page = html.page(timed)
    assert "Time to the first token" in page
    assert page.count("<circle") == 7 * len(ALL_ARMS)
    assert "noise_floor" in page


def test_a_recording_cannot_act_in_the_page(tmp_path: Path, counting: Engines) -> None:
    import json

    path = tmp_path / "runs.jsonl"
    name = '<img src=x onerror="alert(1)">{{ 7*7 }}'
    messages = [
        {"role": "user", "content": "<script>"},
        {"role": "assistant", "content": "a"},
    ]
    path.write_text(json.dumps({"id": name, "messages": messages}) + "\n")
    config = Config(policy="keep_all", model="tiny", tokens_only=True)
    page = html.page(replay(Workload([path]), config, counting))
    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;img" in page
    assert "{{ 7*7 }}" in page


def test_where_an_arm_ended_is_drawn(runs_file: Callable[..., Path], running: Engines) -> None:
    config = Config(policy="keep_last:n=1", model="tiny")
    played = replay(
        Workload([runs_file(14, chars=900)]),
        config,
        running,
        arms=[Arm.APPEND_ONLY, Arm.AMORTIZE],
    )
    page = html.page(played)
    assert "ended here" in page
    assert "outgrew the model&#39;s context" in page
    assert "outgrew the model's context" in printed(played.report, 200)
