"""Journals of our own sessions as recorded runs."""

import pytest

from leyline_agent import Session, TrajectoryError
from leyline_agent.readers import read, read_text
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

TASK = {"role": "user", "content": "Fix it."}


def run(session, turns, messages=(TASK,)):
    for _ in range(turns):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        reply = session.history[-1]
        call = reply["tool_calls"][0]["id"]
        messages = [
            *messages, reply, {"role": "tool", "tool_call_id": call, "content": "passed " * 90}
        ]  # fmt: skip
    return messages


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.jsonl"


@pytest.fixture
def session(path):
    model = DeterministicModel(*[tool_call("bash", id=f"c{n}", n=n) for n in range(9)])
    policy = "truncate_older_than:n=1,max_chars=40"
    return Session(policy, MockAdapter(model), id="s-1", journal=path)


def test_a_run_is_the_unedited_history(path, session):
    run(session, 4)
    assert session.edits
    (found,) = read(path)
    assert (found.id, found.format) == ("s-1", "leyline-journal")
    assert list(found.messages) == session.history
    assert next(read_text(path.read_text())).messages == found.messages


def test_every_branch_is_a_run_the_newest_first(path, session):
    messages = run(session, 3)
    run(session, 1, [*messages[:3], {"role": "user", "content": "Try again."}])
    newest, other = read(path)
    assert (newest.id, other.id) == ("s-1", "s-1, branch 2")
    assert list(newest.messages) == session.history
    assert list(other.messages) == messages[:-1]


def test_a_session_without_an_answer_has_no_run(path, session):
    session.begin([TASK])
    assert list(read(path)) == []


def test_a_last_line_that_was_cut_off_is_passed_over(path, session):
    run(session, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"v":1,"event":"comm')
    (found,) = read(path)
    assert list(found.messages) == session.history


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda lines: [*lines[:2], lines[2][:30], *lines[3:]], "line 3: malformed JSON"),
        (lambda lines: [lines[0], *lines[3:]], "line 3: this 'commit' event does not fit"),
        (lambda lines: [*lines, "[]"], "line 8: not an event"),
    ],
)
def test_a_corrupt_one_is_told_with_its_line(path, session, damage, problem):
    run(session, 3)
    lines = damage(path.read_text().splitlines())
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(TrajectoryError, match=problem):
        list(read(path))
    found = []
    assert list(read(path, on_error=found.append)) == []
    assert problem in str(found[0])
