from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from leyline_agent.directive import Mode
from leyline_agent.errors import PolicyError
from leyline_agent.signals import stub
from leyline_agent.trajectory import Trajectory
from leyline_policies.keep_all import KeepAll
from leyline_policies.truncate_older_than import TruncateOlderThan

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]


def test_keep_all_edits_nothing(run: Run) -> None:
    assert KeepAll().propose(run(("ls", "x" * 9000), ("ls", "x" * 9000))) == []


def test_older_results_are_cut_in_place(run: Run) -> None:
    trajectory = run(("a", "1" * 500), ("b", "2" * 500), ("c", "3" * 500))
    (edit,) = TruncateOlderThan(n=2, max_chars=200).propose(trajectory)
    (message,) = edit.replacement
    assert (edit.start, edit.end) == (2, 3)
    assert {**message, "content": ""} == {**trajectory.messages[2], "content": ""}
    assert 198 <= len(message["content"]) <= 200
    assert message["content"].startswith("<returncode>0")
    assert message["content"].endswith("1</output>")
    assert (edit.mode, edit.policy) == (Mode.REPAIR, "truncate_older_than")


def test_short_results_stay(run: Run, places: Places) -> None:
    trajectory = run(("a", "short"), ("b", "x" * 500), ("c", ""), ("d", ""))
    assert places(TruncateOlderThan(), trajectory) == [4]


@pytest.mark.parametrize(("n", "cut"), [(1, [2, 4]), (2, [2]), (3, []), (99, [])])
def test_the_most_recent_stay_whole(run: Run, places: Places, n: int, cut: list[int]) -> None:
    trajectory = run(*(("a", "x" * 500) for _ in range(3)))
    assert places(TruncateOlderThan(n=n), trajectory) == cut


def test_a_stub_stays(run: Run, places: Places) -> None:
    trajectory = run(("a", "x" * 500), ("b", ""))
    view = trajectory.edited([trajectory.tool_results[0].replace(stub("y" * 300))])
    assert places(TruncateOlderThan(n=1), view) == []


@pytest.mark.parametrize("options", [{"n": 0}, {"n": "many"}, {"max_chars": 0}, {"keep": 2}])
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        TruncateOlderThan(**options)


def test_the_rule_takes_ten_lines() -> None:
    lines = inspect.getsource(TruncateOlderThan).splitlines()
    doc = (inspect.getdoc(TruncateOlderThan) or "").splitlines()
    code = [line for line in lines if line.strip()]
    documented = [line for line in doc if line.strip()]
    assert len(code) - len(documented) <= 10
