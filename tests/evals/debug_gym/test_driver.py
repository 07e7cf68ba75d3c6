from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from leyline_agent.errors import LeylineError
from leyline_evals.debug_gym.command import debug_gym
from leyline_evals.debug_gym.driver import DebugGym, make
from leyline_evals.solve.command import config_of
from leyline_evals.solve.driver import Driver, Task
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.options import RunOptions
from leyline_evals.tasks import generate


def test_tasks_are_chosen_by_pattern_in_their_order() -> None:
    driver = DebugGym(difficulties=(1, 2), num_tasks=3)
    names = [task.id for task in driver.tasks(())]
    assert len(names) == 6
    assert [task.id for task in driver.tasks(["d2-*"])] == names[3:]
    assert [task.id for task in driver.tasks([names[4], names[0]])] == [names[0], names[4]]
    assert {task.group for task in driver.tasks(())} == {"d1", "d2"}
    with pytest.raises(EvalError, match="no task matches 'd9.*they are d1-0000"):
        driver.tasks(["d9*"])


def test_it_is_made_again_of_its_options() -> None:
    driver = DebugGym(difficulties=(3,), num_tasks=2, first=7, protocol="text", chars=900)
    same: Driver = make(**driver.options)
    assert same.options == driver.options
    assert list(same.tasks(())) == list(driver.tasks(()))
    assert same.observations == "user"
    assert DebugGym().observations == "tool"


def test_a_task_that_is_another_now_is_refused() -> None:
    driver = DebugGym(difficulties=(1,), num_tasks=1)
    (task,) = driver.tasks(())
    assert driver.script(task, 1)
    other = task.model_copy(update={"payload": {"sha256": "0"}})
    with pytest.raises(EvalError, match="Begin a new run"):
        driver.script(other, 1)
    with pytest.raises(EvalError, match="Begin a new run"):
        driver.script(Task(id="gone", benchmark="debug-gym"), 1)


def test_a_set_that_is_not_installed_needs_its_checkout() -> None:
    with pytest.raises(EvalError, match="needs --path: a checkout of https://.*QuixBugs"):
        DebugGym(problems="quixbugs").tasks(())


def test_without_its_environment_it_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path))
    with pytest.raises(EvalError, match="run `leyline eval setup debug-gym`"):
        DebugGym(box="none").versions()
    with pytest.raises(EvalError, match="run `leyline eval setup debug-gym`"):
        DebugGym(problems="mini_nightmare").tasks(())


def test_without_a_sandbox_no_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvalError, match="apt-get install bubblewrap"):
        DebugGym().versions()


def test_the_command_makes_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    driver = debug_gym(difficulty="3, 1", num_tasks=2, disk=64, path=tmp_path / "x" / "..")
    assert driver.options["difficulties"] == [1, 3]
    assert driver.options["path"] == str(tmp_path)
    assert driver.options["disk"] == 64
    assert capsys.readouterr().err == ""
    debug_gym(sandbox="none")
    assert "the model's commands run as you do" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "0", "6", "1,x", "1;2"])
def test_no_other_difficulties(text: str) -> None:
    with pytest.raises(LeylineError, match="numbers from 1 to 5"):
        debug_gym(difficulty=text)


def test_a_set_without_gold_is_not_scripted() -> None:
    driver = DebugGym(problems="mini_nightmare")
    problem = replace(generate(0, 1), gold={})
    vars(driver)["_problems"] = {problem.id: problem}
    with pytest.raises(EvalError, match="scripted writes the gold down, and none is known of d1-"):
        config_of(driver, RunOptions(model="scripted"))
    assert config_of(driver, RunOptions(model="bundled")).size == 4
