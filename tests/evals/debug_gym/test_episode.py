"""Episodes with a stand-in for debug-gym in the process; its wire and grading are the real ones."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from gym_runs import Run

from leyline_agent.testing import tool_call
from leyline_agent.testing.model import Reply
from leyline_evals.debug_gym import boxes, episode, grading
from leyline_evals.debug_gym.driver import DebugGym
from leyline_evals.solve.child import ChildDied, ChildSilent
from leyline_evals.solve.driver import Ended
from leyline_evals.solve.environments import Made
from leyline_evals.solve.errors import EvalError, ModelFailed
from leyline_evals.tasks.problem import PYTEST

# Its tools: `edit` writes a file, `bash` runs Python in the process itself.
STAND_IN = """
import os, sys, time
from leyline_evals.debug_gym.child import main as real

def episode(task, wire):
    BEGIN
    changes, did = {}, None
    messages = [{"role": "user", "content": task["instructions"]}]
    while True:
        wire.write({"ask": {"messages": messages, "tools": [], "did": did}})
        answer = wire.read()
        if "stop" in answer:
            return {"done": {"changes": changes, "left": [], "did": None}}
        call, did = answer["call"], {"seconds": 0.25}
        if call is not None and call["name"] == "bash":
            exec(call["arguments"]["command"])
        if call is not None and call["name"] == "edit":
            changes[call["arguments"]["path"]] = call["arguments"]["new_code"]
        if call is not None and call["name"] == "submit":
            return {"done": {"changes": changes, "left": ["big/"], "did": did}}
        said = answer["problem"] or "done"
        result = {"role": "tool", "tool_call_id": call["id"]} if call else {"role": "user"}
        messages += [answer["reply"], {**result, "content": said}]

real.episode = episode
main = real.main
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DebugGym:
    """One easy task, bare, with the stand-in."""
    return stood_in(tmp_path, monkeypatch)


def stood_in(folder: Path, monkeypatch: pytest.MonkeyPatch, begin: str = "pass") -> DebugGym:
    child = folder / "child"
    child.mkdir(exist_ok=True)
    (child / "__init__.py").touch()
    (child / "main.py").write_text(STAND_IN.replace("BEGIN", begin))
    monkeypatch.setattr(boxes, "CHILD", child)
    monkeypatch.setattr(episode, "STARTING", 30.0)
    driver = DebugGym(difficulties=(1,), num_tasks=1, box="none")
    prefix = Path(sys.prefix)
    made = Made(prefix, Path(sys.executable), Path(sys.base_prefix), {"python": "3"})
    vars(driver)["_made"] = made
    return driver


def gold(driver: DebugGym) -> list[Reply]:
    """The edits and the submit of the script."""
    (task,) = driver.tasks(())
    edits = next(iter(driver._problems.values())).gold.items()
    written: list[Reply] = [tool_call("edit", path=path, new_code=text) for path, text in edits]
    assert task.id
    return [*written, tool_call("submit")]


def test_gold_is_resolved_by_the_hidden_tests(driver: DebugGym, run: Run) -> None:
    outcome = run(driver, [tool_call("view", path="a.py"), *gold(driver)])
    assert outcome.ended is Ended.RESOLVED
    assert outcome.detail == "3 of 3 tests passed; not counted: big/"
    assert (run.folder / "patch.diff").read_text() == outcome.patch
    assert "3 passed" in (run.folder / "grading.txt").read_text()
    assert [(step.action, step.tool_seconds) for step in run.steps] == [
        ("view", 0.25),
        ("edit", 0.25),
        ("submit", 0.25),
    ]
    assert run.steps[0].reads == ("a.py",)
    assert run.steps[1].prompt > run.steps[0].prompt > 0


def test_nothing_done_is_unresolved(driver: DebugGym, run: Run) -> None:
    outcome = run(driver, [tool_call("submit")])
    assert (outcome.ended, outcome.patch) == (Ended.UNRESOLVED, "")
    assert "of 3 tests passed" in outcome.detail


SAYS_SO = "import os\nos.write(1, b'3 passed in 0.1s\\n')\nos._exit(0)\n"


@pytest.mark.parametrize(
    "path",
    ["iniconfig.py", "iniconfig/__init__.py", "pluggy/__init__.py", "packaging.py", "json.py"],
)
def test_a_module_in_the_place_of_pytests_says_nothing(
    driver: DebugGym, run: Run, path: str
) -> None:
    outcome = run(driver, [tool_call("edit", path=path, new_code=SAYS_SO), tool_call("submit")])
    assert outcome.ended is Ended.UNRESOLVED
    assert "of 3 tests passed" in outcome.detail or "without a verdict" in outcome.detail


@pytest.mark.parametrize("at", ["now", "exit"])
def test_a_program_that_ends_its_tests_solves_nothing(driver: DebugGym, run: Run, at: str) -> None:
    (path,) = next(iter(driver._problems.values())).gold
    code = SAYS_SO
    if at == "exit":
        code = "import atexit, os\natexit.register(os._exit, 0)\n"
    outcome = run(driver, [tool_call("edit", path=path, new_code=code), tool_call("submit")])
    assert outcome.ended is Ended.UNRESOLVED
    assert ("without a verdict (exit status 0)" in outcome.detail) == (at == "now")


def test_a_plugin_that_an_agent_installs_is_not_loaded(driver: DebugGym, run: Run) -> None:
    points = "[pytest11]\nevil = evil\n"
    script = [
        tool_call("edit", path="evil.py", new_code=SAYS_SO),
        tool_call("edit", path="evil-1.0.dist-info/entry_points.txt", new_code=points),
        tool_call(
            "edit", path="evil-1.0.dist-info/METADATA", new_code="Name: evil\nVersion: 1.0\n"
        ),
    ]
    outcome = run(driver, [*script, tool_call("submit")])
    assert outcome.ended is Ended.UNRESOLVED
    assert "of 3 tests passed" in outcome.detail  # They ran.


def test_where_the_number_of_tests_is_unknown_the_programs_skip_is_no_pass(
    driver: DebugGym, run: Run
) -> None:
    problem = next(iter(driver._problems.values()))
    files = {
        "m.py": "def a(): return 1\ndef b(): return 2\n",
        "test_m.py": "import m\ndef test_a(): assert m.a() == 1\ndef test_b(): assert m.b() == 3\n",
    }
    grade = f"{PYTEST} -q test_m.py"
    vars(driver)["_problems"] = {
        problem.id: replace(problem, files=files, hidden={}, tests=0, grade=grade)
    }
    right = "def a(): return 1\ndef b(): return 3\n"
    cheat = "import pytest\ndef a(): return 1\ndef b(): pytest.skip('hard')\n"
    outcome = run(driver, [tool_call("edit", path="m.py", new_code=right), tool_call("submit")])
    assert outcome.ended is Ended.RESOLVED
    outcome = run(driver, [tool_call("edit", path="m.py", new_code=cheat), tool_call("submit")])
    assert outcome.ended is Ended.UNRESOLVED
    assert outcome.detail.startswith("1 tests passed, but not test_m.py::test_b")


def test_a_limit_is_graded_and_named(driver: DebugGym, run: Run) -> None:
    outcome = run(driver, [*gold(driver)[:-1], "Hm."], steps=2)
    assert outcome.ended is Ended.RESOLVED
    outcome = run(driver, ["Hm."], steps=1)
    assert outcome.ended is Ended.LIMIT
    assert outcome.detail.startswith("1 steps are over; ")
    outcome = run(driver, ["Hm."] * 999, seconds=0.1, repeats=0, steps=999)
    assert outcome.ended is Ended.TIMEOUT


def test_a_model_that_fails_ends_the_process_and_is_passed_on(driver: DebugGym, run: Run) -> None:
    with pytest.raises(ModelFailed, match="no GPU"):
        run(driver, [RuntimeError("no GPU")])
    assert run.steps == []


def test_what_an_agent_does_to_its_process_counts(driver: DebugGym, run: Run) -> None:
    outcome = run(driver, [tool_call("bash", command="os.kill(os.getpid(), 9)")])
    assert outcome.ended is Ended.UNRESOLVED
    assert outcome.detail.startswith("while bash was carried out debug-gym died (signal 9")
    assert [step.action for step in run.steps] == ["bash"]


def test_a_death_before_the_first_reply_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    driver = stood_in(tmp_path, monkeypatch, "os._exit(3)")
    with pytest.raises(ChildDied, match="exit status 3"):
        run(driver, [])
    driver = stood_in(tmp_path, monkeypatch, "raise OSError('no git here')")
    with pytest.raises(EvalError, match="(?s)debug-gym failed: .*no git here"):
        run(driver, [])


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("os.kill(os.getpid(), 19)", "debug-gym said nothing for 1.6 s"),
        ("time.sleep(99)", "debug-gym said nothing for 1.6 s"),
        ("os.chdir('/'); open('gone')", "debug-gym failed: .*FileNotFoundError.*gone"),
        ("os.write(wire._out.fileno(), b'hm\\n')", "does not speak JSON"),
    ],
)
def test_what_an_agent_can_have_caused_counts(
    driver: DebugGym, run: Run, monkeypatch: pytest.MonkeyPatch, command: str, told: str
) -> None:
    monkeypatch.setattr(episode, "STARTING", 1.0)
    outcome = run(driver, [tool_call("bash", command=command)], step_seconds=0.1)
    assert outcome.ended is Ended.UNRESOLVED
    assert re.match(f"(?s)while bash was carried out .*{told}", outcome.detail)
    assert [step.action for step in run.steps] == ["bash"]


def test_a_process_killed_while_the_model_thinks_counts(driver: DebugGym, run: Run) -> None:
    late = "import threading; threading.Timer(0.5, os.kill, (os.getpid(), 9)).start()"
    script = [tool_call("bash", command=late), lambda request: time.sleep(1.5) or "Hm."]
    outcome = run(driver, script)
    assert outcome.ended is Ended.UNRESOLVED
    assert "died (signal 9" in outcome.detail


def test_a_limit_that_had_been_reached_before_it_died_is_told(driver: DebugGym, run: Run) -> None:
    late = "import threading; threading.Timer(0.5, os.kill, (os.getpid(), 9)).start()"
    script = [tool_call("bash", command=f"{late}; time.sleep(1)")]
    outcome = run(driver, script, steps=1)
    assert outcome.ended is Ended.UNRESOLVED  # It died in the step, before the limit.
    ends = "wire.read = lambda: os._exit(7)"
    outcome = run(driver, [tool_call("bash", command=ends)], steps=1)
    assert outcome.ended is Ended.LIMIT
    assert outcome.detail.startswith("1 steps are over; after bash was carried out")


@pytest.mark.parametrize("number", [9, 19])
def test_a_program_that_stops_its_grading_is_unresolved(
    driver: DebugGym, run: Run, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (path,) = next(iter(driver._problems.values())).gold
    code = f"import os, time\nos.kill(os.getppid(), {number})\ntime.sleep(9)\n"
    monkeypatch.setattr(episode, "GRADING", 1.0)
    monkeypatch.setattr(episode, "STARTING", 5.0)
    script = [tool_call("edit", path=path, new_code=code), tool_call("submit")]
    outcome = run(driver, script, step_seconds=1.0)
    assert outcome.ended is Ended.UNRESOLVED
    told = "died (signal 9" if number == 9 else "said nothing for 6 s"
    assert outcome.detail.startswith("the tests that decide: debug-gym")
    assert told in outcome.detail


def test_grading_that_cannot_begin_is_an_error(
    driver: DebugGym, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grading, "mended", lambda problem, changes: {"../out.py": ""})
    with pytest.raises(EvalError, match=r"(?s)grading failed: .*out.py is not below"):
        run(driver, [tool_call("submit")])


def test_silence_before_the_first_reply_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    driver = stood_in(tmp_path, monkeypatch, "time.sleep(99)")
    monkeypatch.setattr(episode, "STARTING", 1.0)
    with pytest.raises(ChildSilent, match="said nothing for 1.2 s"):
        run(driver, [], step_seconds=0.1)


def test_bare_folders_are_removed(driver: DebugGym, run: Run, tmp_path: Path) -> None:
    command = f"open('{tmp_path}/where', 'w').write(task['folder'])"
    run(driver, [tool_call("bash", command=command), tool_call("submit")])
    folder = Path((tmp_path / "where").read_text())
    assert folder.name == "testbed"
    assert not folder.parent.exists()


def test_a_missing_bubblewrap_is_told_before_anything_is_run(
    driver: DebugGym, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    driver.box = "bubblewrap"
    with pytest.raises(EvalError, match="apt-get install bubblewrap"):
        run(driver, [])
