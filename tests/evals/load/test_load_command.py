"""`leyline replay` with a workload, an adapter or a concurrency, as it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_evals.load.command import whole_numbers
from leyline_evals.load.report import LoadReport, Point
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.errors import ReplayError

WORKLOAD = "message_edit:sessions=3,turns=4,system=40,turn=20"
DOCUMENT = Path(__file__).parents[3] / "docs" / "replay.md"


def leyline(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def test_a_workload_is_counted(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    status = leyline(
        "replay", "--workload", WORKLOAD, "--tokens-only", "--model", tiny_folder, "--json", out
    )
    shown = capsys.readouterr().out
    assert status == 0
    assert "3 conversations" in shown
    report = LoadReport.model_validate_json(out.read_text())
    assert [point.arm for point in report.points] == list(ALL_ARMS)
    assert report.config.workload == f"{WORKLOAD},seed=0"
    by_arm = {point.arm: point.figures for point in report.points}
    assert by_arm[Arm.AMORTIZE].hit_rate > by_arm[Arm.PREFIX_CACHE].hit_rate


def test_recordings_go_to_a_server_at_several_concurrencies(
    runs_file: Callable[..., Path], live_url: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    status = leyline(
        "replay", runs_file(3, 4), "-p", "truncate_older_than:n=1,max_chars=20", "--arms",
        "prefix_cache,amortize", "--adapter", f"http={live_url}", "--concurrency", "1,2",
        "--json", out,
    )  # fmt: skip
    assert status == 0
    points = json.loads(out.read_text())["points"]
    assert [(one["concurrency"], one["arm"]) for one in points] == [
        (1, "prefix_cache"), (1, "amortize"), (2, "prefix_cache"), (2, "amortize"),
    ]  # fmt: skip
    assert all(one["calls"] == 7 and one["figures"]["ttft_ms"]["p50"] > 0 for one in points)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--concurrency", "2"], "name recorded files or --workload"),
        (["--workload", WORKLOAD, "--html", "page.html"], "--html does not go with"),
        (["--workload", WORKLOAD, "-p", "dedupe", "-p", "keep_all"], "there is one --policy"),
        (["--workload", WORKLOAD, "--concurrency", "0"], "--concurrency 0: numbers of calls"),
        (
            ["--workload", WORKLOAD, "--tokens-only", "--concurrency", "1,4,16"],
            "--tokens-only counts the same at every concurrency",
        ),
        (["--workload", "message_edit:sesions=3"], "no option 'sesions'; did you mean 'sessions'?"),
        (["--workload", "message_edit:sessions=0"], "sessions must be a whole number, at least 1"),
        (["--workload", "chat"], "no workload 'chat'"),
        (["--workload", WORKLOAD, "--tokens-only", "--adapter", "http"], "leave --adapter out"),
        (["--workload", WORKLOAD, "--adapter", "openai"], "where is the server"),
        ([], "no files to replay"),
    ],
)
def test_bad_options(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leyline("replay", *options) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_server_that_is_not_there_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyline_adapters.bundled.http_errors._backoff", lambda state: 0.0)
    status = leyline(
        "replay", "--workload", WORKLOAD, "--adapter", "http=http://127.0.0.1:9", "--arms",
        "amortize",
    )  # fmt: skip
    assert status == 1
    assert "EngineUnavailable" in " ".join(capsys.readouterr().out.split())


def test_whole_numbers() -> None:
    assert whole_numbers("1, 4,16") == [1, 4, 16]
    with pytest.raises(ReplayError, match="numbers of calls"):
        whole_numbers("two")


def test_the_json_is_documented() -> None:
    part = DOCUMENT.read_text().split("\n## Many conversations at once\n")[1].split("\n## ")[0]
    told = set(part.replace(".<error>", "").split("`"))
    config = LoadReport.model_fields["config"].annotation
    for kind in (Point, LoadReport, config):
        assert kind is not None
        assert set(kind.model_fields) - {"format", "version", "points"} <= told  # type: ignore[attr-defined]
