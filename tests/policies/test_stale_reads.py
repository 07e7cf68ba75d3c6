from __future__ import annotations

from collections.abc import Callable

from leyline_agent.signals import ToolEffects
from leyline_agent.trajectory import Trajectory
from leyline_policies.stale_reads import StaleReads

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

LONG = "x = 1\n" * 100


def test_each_stub_says_what_superseded_the_output(run: Run) -> None:
    trajectory = run(
        ("cat /r/a.py", LONG),
        ("cat /r/b.py", LONG),
        ("pytest", LONG),
        ("sed -i s/x/y/ /r/a.py", ""),
        ("cat /r/b.py", LONG),
        ("pytest", LONG),
    )
    edits = StaleReads().propose(trajectory)
    assert {e.start: (e.reason, e.replacement[0]["content"]) for e in edits} == {
        2: ("edited", "[Earlier output removed: /r/a.py was changed later]"),
        4: ("reread", "[Earlier output removed: /r/b.py is shown again later]"),
        6: ("rerun", "[Earlier output removed: the same command was run again later]"),
    }


def test_one_current_copy_stays(run: Run) -> None:
    trajectory = run(*(("cat /r/a.py", LONG) for _ in range(5)))
    view = trajectory.edited(StaleReads().propose(trajectory))
    assert [LONG in result.content for result in view.tool_results] == [False] * 4 + [True]


def test_outputs_shorter_than_their_stub_stay(run: Run, places: Places) -> None:
    assert places(StaleReads(), run(("cat /r/a.py", "x"), ("cat /r/a.py", "x"))) == []


def test_a_very_long_path_is_shown_by_its_end(run: Run) -> None:
    path = "/r/" + "d/" * 200 + "a.py"
    trajectory = run((f"cat {path}", LONG), (f"rm {path}", ""))
    (edit,) = StaleReads().propose(trajectory)
    assert "d/a.py was changed later" in edit.replacement[0]["content"]
    assert len(edit.replacement[0]["content"]) < 200


def test_tools_of_the_user_s_own(run: Run, places: Places) -> None:
    trajectory = run(("/p", LONG), ("/p", LONG), tool="open_page")
    assert places(StaleReads(), trajectory) == []
    own = StaleReads(effects={"open_page": ToolEffects(reads=("command",))})
    assert places(own, trajectory) == [2]


def test_what_another_policy_edited_stays(run: Run, places: Places) -> None:
    trajectory = run(("cat /r/a.py", LONG), ("rm /r/a.py", ""))
    view = trajectory.edited([trajectory.tool_results[0].replace("shortened " + LONG[:200])])
    assert places(StaleReads(), view) == []
