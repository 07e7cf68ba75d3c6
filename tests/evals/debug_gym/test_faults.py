"""What agents do to their sandbox, in the real debug-gym: `leyline eval setup debug-gym` first."""

from __future__ import annotations

import os
import subprocess

import pytest
from gym_runs import Run

from leyline_agent.testing import tool_call
from leyline_agent.testing.model import Reply
from leyline_evals.debug_gym import episode
from leyline_evals.debug_gym.driver import DebugGym
from leyline_evals.solve import sandbox
from leyline_evals.solve.driver import Ended
from leyline_evals.solve.environments import find
from leyline_evals.solve.errors import EvalError

try:
    find("debug-gym")
    sandbox.require("bubblewrap")
    missing = ""
except EvalError as error:
    missing = str(error)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing), reason=missing)]


def driver(difficulty: int = 1, **options: object) -> DebugGym:
    return DebugGym(difficulties=(difficulty,), num_tasks=1, **options)  # type: ignore[arg-type]


def after(made: DebugGym, *commands: str) -> list[Reply]:
    """The script that solves the task, after these commands."""
    (task,) = made.tasks(())
    return [*(tool_call("bash", command=command) for command in commands), *made.script(task, 1)]


def test_all_tools(run: Run) -> None:
    made = driver(2)
    (task,) = made.tasks(())
    path, text = next(iter(made._problems[task.id].gold.items()))
    line = 1 + text.splitlines().index(next(x for x in text.splitlines() if "return" in x))
    script = [
        tool_call("bash", command="git log --oneline; git status --short; pwd"),
        tool_call("view", path=path, start=1, end=3),
        tool_call("grep", pattern="def ", path=path),
        tool_call("pdb", command=f"b {path}:{line}"),
        tool_call("pdb", command="c"),
        tool_call("edit", path="tests/scale.py", new_code="SIZE = 1"),
        tool_call("edit", path=path, start=1, end=1, new_code='"""Mended."""'),
        tool_call("pdb", command="c"),
        tool_call("nothing"),
        tool_call("view", path="gone.py"),
        "I am at a loss.",
        tool_call("eval"),
        tool_call("submit", message="not yet"),
    ]
    outcome = run(made, script)
    seen = run.seen[1::2]
    assert outcome.ended is Ended.UNRESOLVED
    assert seen[0].split()[1:] == ["Initial", "/testbed"]
    assert f"Viewing `{path}`, lines 1-3" in seen[1]
    assert "def " in seen[2]
    assert "Breakpoint 1 at" in seen[3]
    assert "Context around the current frame" in seen[4]
    assert "not editable" in seen[5]
    assert "updated successfully" in seen[6]
    assert "Pdb command output" in seen[7]
    assert "Unregistered tool: nothing" in seen[8]
    assert "does not exist" in seen[9]
    assert "makes no tool call" in seen[10]
    assert "failed" in seen[11]
    actions = [step.action for step in run.steps]
    assert actions[-3:] == ["malformed", "eval", "submit"]
    assert '+"""Mended."""' in outcome.patch


@pytest.mark.parametrize("protocol", ["tools", "text"])
@pytest.mark.parametrize("difficulty", [1, 5])
def test_gold_is_resolved(run: Run, difficulty: int, protocol: str) -> None:
    made = driver(difficulty, protocol=protocol)
    outcome = run(made, after(made))
    assert (outcome.ended, [step.action for step in run.steps][-1]) == (Ended.RESOLVED, "eval")
    assert outcome.patch.startswith("--- a/")


def test_the_same_script_gives_the_same_history(run: Run) -> None:
    made = driver(4)
    script = after(made, "ls -lan --time-style=+", 'python -c \'print({"b", "a"})\'; env; date +%Z')
    run(made, script)
    first = run.seen
    run(made, script)
    assert run.seen == first


def test_a_command_that_hangs_is_told_and_the_episode_goes_on(run: Run) -> None:
    made = driver()
    outcome = run(made, after(made, "echo on; sleep 999 | cat"), step_seconds=4.0)
    assert outcome.ended is Ended.RESOLVED
    assert "timed out after 4 seconds" in run.seen[1]
    assert run.steps[0].tool_seconds < 10


def test_tests_that_hang_are_told(run: Run) -> None:
    made = driver()
    (task,) = made.tasks(())
    (path,) = made._problems[task.id].gold
    script = [tool_call("edit", path=path, new_code="while True: pass\n"), tool_call("eval")]
    outcome = run(made, [*script, tool_call("submit")], step_seconds=5.0)
    assert outcome.ended is Ended.UNRESOLVED
    assert "timed out after 5 seconds" in run.seen[3]
    assert "not over in 60 s" in outcome.detail


def test_a_full_disk_is_the_agents_problem(run: Run) -> None:
    made = driver(disk=8)
    fill = "for f in big /tmp/big; do head -c 99000000 /dev/zero > $f; done"
    outcome = run(made, after(made, f"{fill}; rm big /tmp/big"))
    assert "No space left on device" in run.seen[1]
    assert outcome.ended is Ended.RESOLVED


def test_a_fork_bomb_ends_its_own_episode(run: Run) -> None:
    made = driver(processes=60)
    outcome = run(made, after(made, "bomb() { bomb | bomb & }; bomb; sleep 9"))
    if os.getuid() == 0:  # Others are refused by the kernel before.
        assert outcome.ended is Ended.UNRESOLVED
        assert (
            "while bash was carried out debug-gym was ended: it had more than 60" in outcome.detail
        )
        assert [step.action for step in run.steps] == ["bash"]
    left = subprocess.run(["pgrep", "-f", "bomb"], capture_output=True, check=False)
    assert left.returncode == 1


def test_memory_is_bounded(run: Run) -> None:
    made = driver(memory=700)
    hog = "x = bytearray(600 << 20); import time; time.sleep(9)"
    outcome = run(made, after(made, f"python -c '{hog}' & python -c '{hog}'"))
    assert outcome.ended is Ended.UNRESOLVED
    assert "more than 700 MiB of memory" in outcome.detail


@pytest.mark.parametrize("command", ["kill -9 -1; sleep 9", "kill -9 $PPID; sleep 9"])
def test_who_kills_its_parent_ends_its_own_episode(run: Run, command: str) -> None:
    made = driver()
    outcome = run(made, after(made, command))
    assert outcome.ended is Ended.UNRESOLVED
    assert "while bash was carried out debug-gym died" in outcome.detail
    assert len(run.steps) == 1


def test_who_stops_its_parent_ends_its_own_episode(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(episode, "STARTING", 20.0)
    outcome = run(driver(), [tool_call("bash", command="kill -STOP $PPID")], step_seconds=2.0)
    assert outcome.ended is Ended.UNRESOLVED
    assert "while bash was carried out debug-gym said nothing for 32 s" in outcome.detail


def test_who_kills_its_grading_is_unresolved(run: Run) -> None:
    made = driver()
    (task,) = made.tasks(())
    (path,) = made._problems[task.id].gold
    code = "import os\nif os.path.exists('hidden'):\n"
    code += "    os.kill(os.getppid(), 9)\n"
    outcome = run(made, [tool_call("edit", path=path, new_code=code), tool_call("submit")])
    assert outcome.ended is Ended.UNRESOLVED
    assert outcome.detail.startswith("the tests that decide: debug-gym died")


def test_hidden_tests_the_network_and_this_machine_are_out_of_reach(run: Run) -> None:
    made = driver(3)
    look = (
        "find / -name '*hidden*' -not -path '/proc/*' 2>/dev/null | grep -v site-packages | "
        "grep test; ls /home ~root/.ssh 2>/dev/null; grep -c . /etc/passwd 2>&1; "
        "(echo > /dev/tcp/127.0.0.1/22) 2>&1; ls /proc/1/root 2>&1; echo over"
    )
    write = "cd $(dirname $(grep -l child.main /proc/[0-9]*/cmdline | tail -1)); readlink fd/0"
    outcome = run(made, after(made, look, write))
    assert "test_hidden" not in run.seen[1]
    assert "Connection refused" in run.seen[1]
    assert run.seen[3].startswith("Command failed")
    assert outcome.ended is Ended.RESOLVED


def test_a_test_that_cheats_is_put_back(run: Run) -> None:
    made = driver(3)
    cheat = "import pytest\ndef pytest_collection_modifyitems(items): items.clear()\n"
    script = [
        tool_call("edit", path="conftest.py", new_code=cheat),
        tool_call("bash", command="rm tests/test_*; echo 'def test(): 1' > tests/test_x.py"),
        tool_call("eval"),
        tool_call("submit"),
    ]
    outcome = run(made, script)
    assert outcome.ended is Ended.UNRESOLVED
    assert "not counted: conftest.py, tests/" in outcome.detail


def test_what_says_that_the_tests_passed_is_not_believed(run: Run) -> None:
    says = "import os\nos.write(1, b'5 passed in 0.1s\\n')\nos._exit(0)\n"
    script = [
        tool_call("edit", path="iniconfig.py", new_code=says),
        tool_call("edit", path="packaging/__init__.py", new_code=says),
        tool_call("submit"),
    ]
    outcome = run(driver(2), script)
    assert outcome.ended is Ended.UNRESOLVED
    assert "5 passed" not in (run.folder / "grading.txt").read_text()
    assert "tests passed" in outcome.detail


def test_grep_in_plain_text_is_the_tool_or_the_program(run: Run) -> None:
    made = driver(2, protocol="text")
    commands = ("grep def .", "grep -rn def . | head -1", "grep -c def $(git ls-files '*.py')")
    run(made, [f"```bash\n{command}\n```" for command in commands])
    seen = run.seen[1::2]
    assert seen[0].startswith("Found ")
    assert "<returncode>0</returncode>" in seen[1]
    assert ".py:" in seen[2]


def test_an_environment_beside_the_fix_leaves_it_in(run: Run) -> None:
    made = driver()
    outcome = run(made, after(made, "python -m venv .venv && ls .venv"))
    assert "pyvenv.cfg" in run.seen[1]
    assert outcome.ended is Ended.RESOLVED
    assert outcome.detail.endswith("; not counted: .venv/")


def test_limits_end_it_and_what_is_there_is_graded(run: Run) -> None:
    made = driver()
    script = after(made)
    outcome = run(made, [*script[:-2], *["Hm."] * 9], repeats=3, steps=30)
    assert outcome.ended is Ended.RESOLVED
    assert "3 times in a row" not in outcome.detail
    outcome = run(made, ["Hm."] * 9, repeats=3, steps=30)
    assert outcome.ended is Ended.LIMIT
    assert "the same reply came 3 times in a row" in outcome.detail


def test_bare_it_leaves_nothing_behind(run: Run) -> None:
    made = driver(box="none")
    outcome = run(made, after(made, "pwd; nohup sleep 4399 >/dev/null 2>&1 &"))
    assert outcome.ended is Ended.RESOLVED
    assert not os.path.exists(run.seen[1].split()[0])  # noqa: PTH110
    left = subprocess.run(["pgrep", "-f", "sleep 4399"], capture_output=True, check=False)
    assert left.returncode == 1
