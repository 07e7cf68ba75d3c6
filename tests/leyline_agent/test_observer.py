"""Observers are told of every turn and cannot cost one."""

import pytest

from leyline_agent import LeylineWarning, Session
from leyline_agent.journal import load

ASK = [{"role": "user", "content": "hello"}]


class Noting:
    def __init__(self):
        self.told = []

    def begun(self, prepared):
        self.told.append(("begun", prepared.commit.version))

    def committed(self, prepared, made, gone, receipt):
        self.told.append(("committed", made.version, receipt.version))

    def failed(self, prepared, error):
        self.told.append(("failed", prepared.commit.version, str(error)))


class Raising:
    def begun(self, prepared, *more):
        raise RuntimeError("no disk")

    committed = failed = begun


def test_turns_are_told_in_order():
    noting = Noting()
    session = Session(observers=[noting])
    session.begin(ASK).fail(ValueError("gone"))
    session.begin(ASK).finish("hi")
    assert noting.told == [
        ("begun", 1),
        ("failed", 1, "gone"),
        ("begun", 1),
        ("committed", 1, 1),
    ]


def test_one_that_raises_costs_no_turn_and_is_warned_of_once(tmp_path):
    noting = Noting()
    session = Session(observers=[Raising(), noting], journal=tmp_path / "j.jsonl")
    with pytest.warns(LeylineWarning, match="observer Raising raised .*no disk"):
        turn = session.begin(ASK)
    turn.finish("hi")  # A second warning would be an error here.
    assert session.version == 1
    assert len(noting.told) == 2
    events = [event["event"] for event in load(tmp_path / "j.jsonl").events]
    assert events == ["open", "begin", "commit"]


def test_where_warnings_are_errors_the_turn_goes_on_too():
    session = Session(observers=[Raising()])
    session.begin(ASK).finish("hi")
    assert session.version == 1


def test_a_resumed_session_has_observers_too(tmp_path):
    path, noting = tmp_path / "j.jsonl", Noting()
    Session(journal=path).begin(ASK).finish("hi")
    Session.resume(path, observers=[noting]).begin([*ASK, *ASK]).finish("ho")
    assert [kind for kind, *_ in noting.told] == ["begun", "committed"]
