from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leyline_agent import Session
from leyline_agent import edit as edit_module
from leyline_agent.directive import Mode
from leyline_agent.errors import PolicyError
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.trajectory import Trajectory
from leyline_policies.erratum import Erratum

Run = Callable[..., Trajectory]

PORT = Erratum(fields=("port",))
OPENING = "STATE UPDATE, which overrides any earlier value:\n"


def texts(trajectory: Trajectory) -> list[str]:
    return [str(m["content"]) for m in trajectory.messages if m["role"] == "user"][1:]


def after(policy: Erratum, trajectory: Trajectory) -> Trajectory:
    edits = policy.propose(trajectory)
    edit_module.check(edits, trajectory.messages)
    assert {edit.mode for edit in edits} <= {Mode.FORGET}
    return trajectory.edited(edits)


def test_a_changed_value_is_told_at_the_end(run: Run) -> None:
    trajectory = run(("cat conf", "port: 8080\nhost: a"), ("cat conf", "port: 8081\nhost: b"))
    (edit,) = PORT.propose(trajectory)
    assert (edit.start, edit.end, edit.mode) == (5, 5, Mode.FORGET)
    assert edit.replacement == ({"role": "user", "content": OPENING + "port: 8081"},)


def test_updates_are_never_stacked(run: Run) -> None:
    view = run(("a", "port: 1"), ("a", "port: 2"))
    for number in range(3, 6):
        view = after(PORT, view)
        assert texts(view) == [f"{OPENING}port: {number - 1}"]
        assert PORT.propose(view) == []
        view = view.extended(run(("a", f"port: {number}")).messages[1:])


def test_another_field_joins_the_update(run: Run) -> None:
    policy = Erratum(fields=("port", "host"))
    view = after(policy, run(("a", "port: 1\nhost: a"), ("a", "port: 2")))
    assert texts(view) == [OPENING + "port: 2"]
    view = after(policy, view.extended(run(("a", "host = b")).messages[1:]))
    assert texts(view) == [OPENING + "port: 2\nhost: b"]


@pytest.mark.parametrize(
    "outputs",
    [
        ("port: 1", "port: 1"),
        ("port: 1", "the port is another"),
        ("port: 1", "portable: 2"),
        ("port: 1", "transport: 2"),
        ("port: 1",),
        (),
    ],
)
def test_what_did_not_change_is_not_told(run: Run, outputs: tuple[str, ...]) -> None:
    assert PORT.propose(run(*(("a", output) for output in outputs))) == []


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("port=9", "9"),
        ("- **port**: 9", "9"),
        ('"port": "9",', "9"),
        ("[port: 9]", "9"),
        ("  port :  9 or more  ", "9 or more"),
    ],
)
def test_how_a_value_may_stand(run: Run, line: str, value: str) -> None:
    (edit,) = PORT.propose(run(("a", "port: 1\n"), ("a", line)))
    assert edit.replacement[0]["content"] == f"{OPENING}port: {value}"


def test_nothing_is_put_behind_a_call_that_runs(run: Run) -> None:
    trajectory = run(("a", "port: 1"), ("a", "port: 2"), ("a", "x"))
    assert PORT.propose(Trajectory(messages=trajectory.messages[:-1])) == []
    assert len(PORT.propose(trajectory)) == 1


def test_a_correction_is_forgotten_and_never_less() -> None:
    assert PORT.mode is Mode.FORGET
    for mode in ("repair", "amortize"):
        with pytest.raises(PolicyError, match="mode must be forget"):
            Erratum(fields=("port",), mode=mode)


def test_in_a_session(run: Run) -> None:
    outputs = [("a", "port: 1"), ("a", "port: 2"), ("a", "x"), ("a", "port: 3"), ("a", "y")]
    messages = run(*outputs).messages
    replies = [dict(m) for m in messages if m["role"] == "assistant"]
    adapter = MockAdapter(DeterministicModel(*replies))
    session = Session(PORT, adapter)
    sent: list[dict[str, Any]] = []
    for place in range(1, len(messages), 2):
        turn = session.begin(messages[:place])
        sent = list(turn.request["messages"])
        turn.finish(adapter.complete(turn.request))
    assert session.skipped == ()
    updates = [m["content"] for m in sent if str(m["content"]).startswith("STATE UPDATE")]
    assert updates == [OPENING + "port: 3"]
    assert len(session.edits) == 3
