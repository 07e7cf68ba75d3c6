"""Episodes and gradings in the real environment, of models that mean harm or talk nonsense.

They need `leyline eval setup swe-bench` and bubblewrap; without the environment they are skipped.
Continuous integration makes it, and runs them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swe_bench_rows import shipped

from leyline_agent.testing import tool_call
from leyline_evals.solve.driver import Ended, Limits
from leyline_evals.solve.errors import EvalError, ModelFailed
from leyline_evals.swe_bench import bench as bench_module
from leyline_evals.swe_bench import places
from leyline_evals.swe_bench.checkouts import checkout
from leyline_evals.swe_bench.driver import SweBench
from leyline_evals.swe_bench.instances import Instance
from leyline_evals.swe_bench.predictions import Grades

pytestmark = pytest.mark.slow

Drivers = Callable[..., SweBench]
FAST = Limits(steps=8, step_seconds=2.0)
TOUCHING = "s/merged.-1..overlaps(span)/span.start <= merged[-1].end/"
CONTAINED = "s/span.end)$/max(merged[-1].end, span.end))/"
MEND = f"sed -i '{CONTAINED}; {TOUCHING}' intervals/spans.py"


def observed(model: Any, place: int = -1) -> str:
    """The last observation that the model was shown before its place-th reply."""
    return str(model.requests[place]["messages"][-1]["content"])


@pytest.mark.parametrize("talk", ["tools", "text"])
def test_an_episode_is_solved_and_graded(episode: Any, tmp_path: Path, talk: str) -> None:
    outcome, steps, model = episode("cat intervals/spans.py", "ls", MEND, "submit", talk=talk)
    assert (outcome.ended, outcome.detail) == (Ended.RESOLVED, "")
    assert "+++ b/intervals/spans.py" in outcome.patch
    assert [step.action for step in steps] == ["bash", "bash", "bash", "submit"]
    assert steps[0].reads == ("intervals/spans.py",)
    assert steps[2].writes == ("intervals/spans.py",)
    assert steps[2].edits  # The policy cut what was read.
    folder = tmp_path / "episode"
    prediction = json.loads((folder / "prediction.json").read_text())
    assert prediction["model_patch"] == outcome.patch
    assert json.loads((folder / "trajectory.json").read_text())["info"]["mini_version"] == "2.4.6"
    assert list(folder.glob("logs/run_evaluation/*/leyline/*/report.json"))


def test_gold_is_resolved_and_empty_is_not(
    drivers: Drivers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["leyline__shelf-2", "leyline__routes-4"]
    for name, resolved in (("gold", 2), ("empty", 0)):
        assert drivers(predictions=name).grade(chosen, tmp_path / name, 1) == 0
        report = json.loads((tmp_path / name / f"{name}.leyline.json").read_text())
        assert report["schema_version"] == 2
        assert report["resolved_instances"] == resolved
        assert report["empty_patch_instances"] == 2 - resolved
        shown = " ".join(capsys.readouterr().out.split())
        assert f"2 of 2 instances have a prediction; {resolved} resolved" in shown
        assert len(json.loads((tmp_path / name / "preds.json").read_text())) == 2


def test_a_patch_that_does_not_apply_is_not_resolved(drivers: Drivers, tmp_path: Path) -> None:
    other = shipped("leyline__shelf-2")["patch"]
    prediction = {"instance_id": "leyline__intervals-1", "model_name_or_path": "m"}
    instance = Instance.model_validate(shipped())
    for patch in (other, "not a patch", "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n"):
        found = drivers().bench.grade(instance, {**prediction, "model_patch": patch}, tmp_path)
        assert not found.resolved
        assert not found.is_broken
        assert "the patch does not apply" in found.detail


def test_what_was_graded_before_is_not_counted_again(drivers: Drivers, tmp_path: Path) -> None:
    instance, bench = Instance.model_validate(shipped()), drivers().bench
    prediction = {"instance_id": instance.instance_id, "model_name_or_path": "m"}
    counted = []
    for patch in (instance.patch, "no patch"):
        made = {**prediction, "model_patch": patch}
        bench.grade(instance, made, tmp_path)
        name = bench.report([instance], {instance.instance_id: made}, tmp_path)
        report = json.loads((tmp_path / name).read_text())
        counted.append((report["resolved_instances"], report["error_instances"]))
    assert counted == [(1, 0), (0, 1)]


def test_a_wrong_patch_is_told_with_the_tests_that_fail(drivers: Drivers, tmp_path: Path) -> None:
    row = shipped()
    wrong = row["patch"].replace("max(merged[-1].end, span.end)", "span.end")
    prediction = {
        "instance_id": row["instance_id"],
        "model_name_or_path": "m",
        "model_patch": wrong,
    }
    found = drivers().bench.grade(Instance.model_validate(row), prediction, tmp_path)
    assert found.detail.startswith("2 tests fail: tests/test_spans.py::test_a_cut_behind")


def test_an_episode_without_a_change_is_unresolved(episode: Any) -> None:
    outcome, _, _ = episode("submit")
    assert (outcome.ended, outcome.detail) == (Ended.UNRESOLVED, "the patch is empty")


def test_what_hangs_is_killed_and_the_model_told(episode: Any) -> None:
    began = time.monotonic()
    outcome, _, model = episode("sleep 600 & sleep 600", "submit", limits=FAST)
    assert outcome.ended is Ended.UNRESOLVED
    assert "the command timed out after 2 s and was killed" in observed(model)
    assert time.monotonic() - began < 60


def test_tests_that_hang_are_unresolved(drivers: Drivers, tmp_path: Path) -> None:
    script = shipped()["eval_script"].replace("python -m pytest", "sleep 600; python -m pytest")
    row = shipped(eval_script=script)
    prediction = {"instance_id": row["instance_id"], "model_name_or_path": "m", "model_patch": ""}
    found = drivers(test_seconds=2.0).bench.grade(
        Instance.model_validate(row), prediction, tmp_path
    )
    assert found.detail == "the tests: the command timed out after 2 s and was killed"


def test_output_without_end_is_cut(episode: Any) -> None:
    _, _, model = episode("yes", "head -c 30000000 /dev/zero | tr '\\0' x", "submit", limits=FAST)
    assert len(observed(model)) < 12_000
    assert "bytes left out" in observed(model) or "characters left out" in observed(model)


def test_a_bomb_of_processes_is_killed(episode: Any) -> None:
    bomb = "for i in $(seq 5000); do sleep 60 & done; wait"
    _, _, model = episode(bomb, "submit", limits=Limits(step_seconds=30.0))
    told = observed(model)
    assert "more than 256 processes" in told or "Resource temporarily unavailable" in told


def test_a_command_cannot_reach_its_parent(episode: Any) -> None:
    outcome, _, model = episode(
        "kill -9 -1; kill -9 $PPID; kill -9 1; ps aux; ls /proc | grep -c '^[0-9]'",
        "ls -a /root /home; env; cat /etc/shadow",
        "python -c 'import socket; socket.create_connection((\"1.1.1.1\", 53), 3)'",
        "touch /usr/x /etc/x; echo done > /tmp/x; pwd",
        "submit",
    )
    assert outcome.ended is Ended.UNRESOLVED
    shown = [str(request["messages"][-1]["content"]) for request in model.requests[1:5]]
    assert "LEYLINE" not in shown[1]
    assert "cat: /etc/shadow: No such file or directory" in shown[1]
    assert ".ssh" not in shown[1]
    assert "unreachable" in shown[2]
    assert shown[3].count("Read-only file system") == 2
    assert "/testbed" in shown[3]


def test_a_full_disk_ends_the_episode_and_no_other(
    episode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = places.Bounds(memory=4 << 30, disk=32 << 20, processes=256)
    monkeypatch.setattr(bench_module, "box", lambda *given: places.box(*given, small))
    fill = "for i in 1 2 3 4 5 6 7 8; do head -c 20000000 /dev/urandom > f$i; done; sleep 20"
    outcome, steps, _ = episode(fill, "submit", talk="text")
    assert outcome.ended is Ended.LIMIT
    assert "the agent wrote more than 32 MiB" in outcome.detail
    assert [step.action for step in steps] == ["bash"]
    assert episode("submit")[0].ended is Ended.UNRESOLVED


@pytest.mark.parametrize("talk", ["tools", "text"])
def test_nonsense_ends_at_a_limit(episode: Any, talk: str) -> None:
    outcome, steps, model = episode(
        replies=["I do not know."], talk=talk, limits=Limits(steps=20, repeats=4)
    )
    assert outcome.ended is Ended.LIMIT
    assert outcome.detail == "the same reply came 4 times in a row; the patch is empty"
    assert [step.action for step in steps] == ["malformed"] * 4
    assert observed(model).startswith("Format error: your reply")


def test_an_endless_loop_of_tools_ends_at_a_limit_and_is_graded(episode: Any) -> None:
    calls = [tool_call("bash", command=MEND), *(tool_call("bash", command="ls") for _ in range(9))]
    outcome, steps, _ = episode(replies=calls, talk="tools", limits=Limits(steps=5))
    assert outcome.ended is Ended.RESOLVED  # What it had mended by then counts.
    assert len(steps) == 5
    outcome, _, _ = episode("ls", limits=Limits(steps=5, seconds=1e-9))
    assert outcome.ended is Ended.TIMEOUT


def test_a_model_that_fails_is_an_error_and_the_next_episode_goes_on(episode: Any) -> None:
    def down(messages: Any) -> Any:
        raise ConnectionError("the server is down")

    with pytest.raises(ModelFailed, match="the server is down"):
        episode(replies=[down], talk="text")
    assert episode("submit")[0].ended is Ended.UNRESOLVED


def test_a_process_that_is_killed_is_an_error_and_the_next_episode_goes_on(
    episode: Any, drivers: Drivers
) -> None:
    bench = drivers(talk="text").bench
    with bench._children.one() as child:
        pid = child._process.pid
    threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(EvalError, match="signal 9, SIGKILL"):
        episode("sleep 30", "submit", limits=Limits(step_seconds=30.0))
    assert episode("submit")[0].ended is Ended.UNRESOLVED


def test_a_name_that_nobody_knows_is_told_to_be_neither_file_nor_on_the_hub(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    driver = SweBench(dataset="leyline/none")
    try:
        with pytest.raises(EvalError, match="not here, and the hub gave none .* Name a local"):
            driver.tasks(())
    finally:
        driver.close()


def test_parquet_is_read(python: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([shipped(), shipped("leyline__shelf-2")]))
    write = "import pandas, sys; pandas.read_json(sys.argv[1]).to_parquet(sys.argv[2])"
    path = tmp_path / "data.parquet"
    subprocess.run([str(python), "-c", write, str(rows), str(path)], check=True)
    driver = SweBench(dataset=str(path))
    try:
        found = driver.instances(())
    finally:
        driver.close()
    assert found == [Instance.model_validate(json.loads(rows.read_text())[n]) for n in (0, 1)]


def test_a_place_that_is_not_there_is_told_before_anything_runs(
    drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.docker_version.cache_clear()
    monkeypatch.setenv("MSWEA_DOCKER_EXECUTABLE", str(tmp_path / "docker"))
    imaged = Instance.model_validate(shipped(files={}, image="swebench/none:latest"))
    with pytest.raises(EvalError, match="no Docker daemon answers"):
        drivers(sandbox="docker").bench.check([imaged])
    with pytest.raises(EvalError, match="which needs Docker; or name a folder"):
        drivers().bench.check([imaged])
    pictured = Instance.model_validate(shipped(image_assets='{"patch": [{"path": "a.png"}]}'))
    with pytest.raises(EvalError, match="has image assets"):
        drivers().bench.check([pictured])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvalError, match="not installed .*apt-get install bubblewrap"):
        drivers().bench.check([Instance.model_validate(shipped())])
    places.docker_version.cache_clear()


DOCKER = """#!/bin/bash
case "$1" in
version) echo 28.0 ;;
run) printf '%s\\n' "$*" >> {root}/asked; echo a-container ;;
exec) until [ "$1" = a-container ]; do shift; done; shift; cd {root}/testbed && exec "$@" ;;
*) printf '%s\\n' "$*" >> {root}/asked ;;
esac
"""


def test_the_loop_in_a_container(
    episode: Any, drivers: Drivers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No daemon runs where these tests do: a stand-in of the docker command takes its place."""
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(root=tmp_path))
    docker.chmod(0o755)
    monkeypatch.setenv("MSWEA_DOCKER_EXECUTABLE", str(docker))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    places.docker_version.cache_clear()
    checkout(Instance.model_validate(shipped()), tmp_path / "testbed")
    drivers(talk="text").close()  # A child that waits has another environment.
    imaged = shipped(files={}, image="swebench/one:latest")
    with pytest.raises(EvalError, match="DockerException"):  # Grading needs the real one.
        episode("sleep 60", "yes", MEND, "submit", instance=imaged, limits=FAST)
    prediction = json.loads((tmp_path / "episode" / "prediction.json").read_text())
    assert "+++ b/intervals/spans.py" in prediction["model_patch"]
    trajectory = (tmp_path / "episode" / "trajectory.json").read_text()
    assert trajectory.count("the command timed out after 2 s and was killed") >= 2
    assert len(trajectory) < 60_000_000
    asked = (tmp_path / "asked").read_text()
    assert "--network none" in asked
    assert "swebench/one:latest" in asked
    places.docker_version.cache_clear()


def test_grading_tells_what_could_not_be_graded(
    drivers: Drivers,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver = drivers(predictions="gold")

    def broken(*given: Any) -> Any:
        raise EvalError("no space left on device")

    monkeypatch.setattr(driver.bench, "grade", broken)
    assert driver.grade(["leyline__shelf-2"], tmp_path, 1, json=True) == 1
    told = Grades.model_validate_json(capsys.readouterr().out)
    assert (told.not_graded, told.total) == (1, 1)
    assert told.patches[0].detail == "no space left on device"
    assert Path(told.report).is_file()
