from __future__ import annotations

from collections.abc import Callable

from leyline_agent.signals import ToolEffects
from leyline_agent.trajectory import Trajectory
from leyline_policies.stale_file import StaleFile

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

LONG = "x = 1\n" * 100


def test_each_stub_names_the_call_that_shows_or_changed_the_file(run: Run) -> None:
    trajectory = run(
        ("cat /r/a.py", LONG),
        ("cat /r/b.py", LONG),
        ("sed -i s/x/y/ /r/a.py", ""),
        ("cat -n /r/b.py", LONG),
    )
    assert {e.start: e.replacement[0]["content"] for e in StaleFile().propose(trajectory)} == {
        2: "[Earlier output removed: /r/a.py was changed later by `sed -i s/x/y/ /r/a.py`]",
        4: "[Earlier output removed: the current copy of /r/b.py is the output of "
        "`cat -n /r/b.py` below]",
    }


def test_one_current_copy_stays(run: Run) -> None:
    trajectory = run(*(("cat /r/a.py", LONG) for _ in range(5)))
    view = trajectory.edited(StaleFile().propose(trajectory))
    assert [LONG in result.content for result in view.tool_results] == [False] * 4 + [True]
    assert StaleFile().propose(view) == []


def test_a_part_does_not_supersede_the_whole(run: Run, places: Places) -> None:
    assert places(StaleFile(), run(("cat /r/a.py", LONG), ("head -3 /r/a.py", LONG))) == []
    assert places(StaleFile(), run(("head -3 /r/a.py", LONG), ("cat /r/a.py", LONG))) == [2]


def test_commands_are_left_to_superseded(run: Run, places: Places) -> None:
    assert places(StaleFile(), run(("pytest", LONG), ("pytest", LONG))) == []


def test_tools_of_the_user_s_own(run: Run, places: Places) -> None:
    trajectory = run(("/p", LONG), ("/p", LONG), tool="open_page")
    own = StaleFile(effects={"open_page": ToolEffects(reads=("command",))})
    assert (places(StaleFile(), trajectory), places(own, trajectory)) == ([], [2])
