from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.policy import parse
from leyline_agent.trajectory import Trajectory
from leyline_policies.superseded import Superseded

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

LONG = "12 passed\n" * 50


@pytest.mark.parametrize("command", ["pytest -q", "tail -n 50 build.log", "git diff", "ps aux"])
def test_of_a_polling_loop_the_last_output_stays(run: Run, command: str) -> None:
    trajectory = run(*((command, f"{n}\n{LONG}") for n in range(4)))
    edits = Superseded().propose(trajectory)
    assert [edit.start for edit in edits] == [2, 4, 6]
    assert edits[0].replacement[0]["content"] == (
        f"[Earlier output removed: `{command}` was run again later]"
    )
    assert Superseded().propose(trajectory.edited(edits)) == []


@pytest.mark.parametrize(
    "commands",
    [
        ("pytest a.py", "pytest b.py"),
        ("pytest", "pytest | tail -3"),
        ("cat /r/a.py", "cat -n /r/a.py"),
        ("cat /r/a.py", "sed -i s/x/y/ /r/a.py"),
    ],
)
def test_other_commands_supersede_nothing(
    run: Run, places: Places, commands: tuple[str, ...]
) -> None:
    assert places(Superseded(), run(*((command, LONG) for command in commands))) == []


def test_a_tool_that_nobody_declared_may_answer_differently(run: Run, places: Places) -> None:
    trajectory = run(("1", LONG), ("1", LONG), tool="next_page")
    assert places(Superseded(), trajectory) == []
    assert places(parse("superseded:repeats=next_page|status"), trajectory) == [2]
