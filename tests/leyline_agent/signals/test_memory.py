from __future__ import annotations

from collections.abc import Callable

from leyline_agent.signals import failures, stale, untouched
from leyline_agent.signals.memory import remembered
from leyline_agent.trajectory import Trajectory

Run = Callable[..., Trajectory]


def test_it_is_made_once_for_each_object_and_key(run: Run) -> None:
    made: list[str] = []
    trajectory = run(("f", {}, "x"), ("f", {}, "x"))
    one, other = trajectory.tool_results

    def make(name: str) -> str:
        made.append(name)
        return name

    assert remembered(one, "key", lambda: make("a")) == "a"
    assert remembered(one, "key", lambda: make("b")) == "a"
    assert remembered(one, "other key", lambda: make("c")) == "c"
    assert remembered(other, "key", lambda: make("d")) == "d"
    assert made == ["a", "c", "d"]


def test_what_is_remembered_is_none_of_the_object_s_value(run: Run) -> None:
    one, other = (run(("f", {}, "x")).tool_results[0] for _ in range(2))
    remembered(one, "key", lambda: 1)
    assert one == other
    assert repr(one) == repr(other)


def test_a_longer_run_and_an_edited_view_are_looked_at_anew(run: Run) -> None:
    cat = ("bash", {"command": "cat /r/a.py"}, "<returncode>0</returncode>\n" + "x\n" * 99)
    trajectory = run(cat, cat)
    assert [s.result.index for s in stale(trajectory)] == [2]
    longer = trajectory.extended(run(cat, cat, cat).messages[-2:])
    assert [s.result.index for s in stale(longer)] == [2, 4]
    assert (len(untouched(trajectory)), len(untouched(longer))) == (2, 3)
    view = longer.edited([longer.tool_results[0].replace("gone")])
    assert [r.index for r in untouched(view)] == [4, 6]
    assert failures(view) == failures(longer) == ()
