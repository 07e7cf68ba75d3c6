import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest

from leyline_agent import Edit, LeylineWarning, Mode, Policy, Session, TrajectoryError
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

SYSTEM = {"role": "system", "content": "You fix bugs."}
TASK = {"role": "user", "content": "Fix the bug."}


class Stub(Policy):
    """Stub every result but the last."""

    def edits(self, trajectory):
        for found in trajectory.tool_results[:-1]:
            if found.content != "stub":
                yield found.replace("stub", mode=Mode.AMORTIZE)


def result(call_id, content="out"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def model():
    return DeterministicModel(*[tool_call("bash", id=f"c{n}", n=n) for n in range(20)])


def run(session, turns, messages=None):
    messages = messages or [SYSTEM, TASK]
    for _ in range(turns):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        reply = session.history[-1]
        messages = [*messages, reply, result(reply["tool_calls"][0]["id"])]
    return messages


def events(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def copied(path):
    """A copy, for a second session: one journal has one writer."""
    return Path(shutil.copy(path, path.with_suffix(".copy")))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs" / "one.jsonl"


def test_events_are_written_as_they_happen(path):
    session = Session(Stub(), MockAdapter(model()), id="run-1", journal=path, mode_floor="repair")
    opened = events(path)
    assert [e["event"] for e in opened] == ["open"]
    assert opened[0]["session"] == "run-1"
    assert (opened[0]["adapter"], opened[0]["policies"]) == ("mock", ["stub"])
    assert (opened[0]["mode_floor"], opened[0]["v"]) == ("repair", 1)
    messages = run(session, 2)
    turn = session.begin(messages)
    *_, begun = events(path)
    assert (begun["event"], begun["base"], begun["version"]) == ("begin", 2, 3)
    assert "messages" not in begun
    turn.finish("done")
    *_, done = events(path)
    assert (done["event"], done["kept"], done["reply"]["content"]) == ("commit", 5, "done")
    assert done["messages"] == [messages[5]]
    (edit,) = done["edits"]
    assert (edit["start"], edit["asked"], edit["mode"]) == (3, "amortize", "repair")
    assert done["receipt"]["version"] == 3


def test_a_resumed_session_is_the_one_that_was_left(path):
    session = Session(Stub(), MockAdapter(model()), journal=path, mode_floor=Mode.REPAIR)
    messages = run(session, 4)
    other = run(session, 2, [*messages[:5], {"role": "user", "content": "Try again."}])
    session.begin(other).fail(TimeoutError("the text of an error may quote anything"))
    resumed = Session.resume(copied(path), Stub(), session.adapter)
    for what in ("id", "version", "history", "view", "edits", "receipts"):
        assert getattr(resumed, what) == getattr(session, what)
    for conversation in (messages, other):
        assert resumed.begin(conversation).commit == session.begin(conversation).commit
    assert "quote" not in path.read_text()


def test_a_resumed_session_goes_on_in_the_same_file(path):
    session = Session(Stub(), MockAdapter(model()), journal=path)
    messages = run(session, 2)
    resumed = Session.resume(path, Stub(), session.adapter)
    messages = run(resumed, 2, messages)
    again = Session.resume(path, Stub(), session.adapter)
    assert again.history == messages[:-1]
    assert again.version == 4
    assert [e["event"] for e in events(path)].count("resume") == 2


def test_a_call_lost_in_a_crash_is_a_retry_after_resuming(path):
    adapter = MockAdapter(model())
    session = Session(Stub(), adapter, journal=path)
    messages = run(session, 2)
    lost = session.begin(messages)
    adapter.complete(lost.request)
    resumed = Session.resume(path, Stub(), adapter)
    turn = resumed.begin(messages)
    assert turn.commit == lost.commit
    assert turn.finish(adapter.complete(turn.request)).reason == "retry"


def test_branches_that_cut_an_edit_are_rebuilt(path):
    session = Session(adapter=MockAdapter(model()), journal=path)
    messages = run(session, 3)
    session.edit(Edit(2, 6, ({"role": "user", "content": "summary"},)))
    session.edit(Edit(8, 8, ({"role": "user", "content": "note"},)))
    messages = run(session, 1, messages)
    run(session, 1, [*messages[:4], TASK])
    resumed = Session.resume(copied(path), adapter=session.adapter)
    assert resumed.view == session.view
    assert resumed.begin(messages).commit == session.begin(messages).commit


def test_a_view_fed_back_is_rebuilt(path):
    session = Session(adapter=MockAdapter(model()), journal=path)
    messages = run(session, 2)
    session.edit(Edit(2, 2, ({"role": "user", "content": "note"},)))
    session.edit(Edit(2, 4, ()))
    messages = run(session, 1, messages)
    assert len(session.edits) == 2
    turn = session.begin([*session.view[:5], {"role": "user", "content": "Other."}])
    assert turn.commit.base_len == 5
    turn.finish("ok")
    resumed = Session.resume(path, adapter=session.adapter)
    assert (resumed.view, resumed.history) == (session.view, session.history)


def test_edits_ahead_are_rebuilt(path):
    session = Session(adapter=MockAdapter(model()), journal=path)
    messages = run(session, 3)
    session.edit(Edit(3, 4, (result("c0", "short"),)))
    assert session.edit_ahead() is not None
    resumed = Session.resume(path, adapter=session.adapter)
    assert (resumed.version, resumed.view) == (4, session.view)
    commit = resumed.begin(messages).commit
    assert (commit.base_version, commit.base_len) == (4, len(session.view))


def test_a_cut_off_last_line_is_dropped_and_told(path, caplog):
    session = Session(Stub(), MockAdapter(model()), journal=path)
    messages = run(session, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with caplog.at_level(logging.WARNING, "leyline"):
        resumed = Session.resume(path, Stub(), session.adapter)
    assert "cut off" in caplog.text
    assert resumed.version == 2
    resumed.begin(messages[:6]).finish("ok")
    assert Session.resume(path, Stub(), session.adapter).history == resumed.history


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda lines: [*lines[:2], lines[2][:30], *lines[3:]], "line 3: not JSON"),
        (lambda lines: ['["open"]', *lines[1:]], "line 1: not an event"),
        (lambda lines: [lines[0].replace('"v":1', '"v":9'), *lines[1:]], "line 1: schema 9"),
        (lambda lines: lines[1:], "line 1: this 'begin' event does not fit"),
        (lambda lines: [lines[0], *lines[3:]], "line 3: this 'commit' event does not fit"),
        (lambda lines: [*lines[:2], lines[2].replace('"pieces"', '"peaces"')], "line 3.*pieces"),
        (lambda lines: [], "holds no whole event"),
    ],
)
def test_corruption_is_told_with_its_line(path, damage, problem):
    session = Session(Stub(), MockAdapter(model()), journal=path)
    run(session, 3)
    lines = damage(path.read_text().splitlines())
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(TrajectoryError, match=problem):
        Session.resume(path, Stub(), session.adapter)


def test_a_new_session_does_not_write_behind_another(path):
    Session(journal=path)
    with pytest.raises(TrajectoryError, match="Session.resume"):
        Session(journal=path)


def test_redacted_text_leaves_the_journal(path):
    session = Session(adapter=MockAdapter(model()), journal=path)
    messages = run(session, 2)
    messages[5]["content"] = "the password is hunter2, keep it"
    messages = run(session, 1, messages)
    session.edit(Edit(5, 6, ({**messages[5], "content": "the password is hunter2"},)))
    messages = run(session, 1, messages)
    assert path.read_text().count("hunter2") == 2
    session.edit(Edit(5, 6, ({**messages[5], "content": "[removed]"},), redact=True))
    messages = run(session, 1, messages)
    assert "hunter2" not in path.read_text()
    assert list(path.parent.iterdir()) == [path]
    resumed = Session.resume(copied(path), adapter=session.adapter)
    assert (resumed.view, resumed.history) == (session.view, session.history)
    assert resumed.begin(messages).commit == session.begin(messages).commit


def test_text_redacted_on_arrival_is_never_written(path, monkeypatch):
    class Guard(Policy):
        def edits(self, trajectory):
            for found in trajectory.tool_results:
                if "hunter2" in found.content:
                    yield found.replace("[removed]", redact=True)

    adapter = MockAdapter(model())
    session = Session(Guard(), adapter, journal=path)
    messages = run(session, 1)
    messages[3]["content"] = "hunter2"
    turn = session.begin(messages)
    written = []
    monkeypatch.setattr(
        session._observers.journal, "write", lambda *args, **fields: written.append(fields)
    )
    turn.finish(adapter.complete(turn.request))
    assert written
    assert "hunter2" not in str(written)


def test_pins_by_function_hold_after_resuming(path):
    def pinned(message):
        return message.get("content") == "out"

    session = Session(Stub(), MockAdapter(model()), journal=path, pinned=pinned)
    messages = run(session, 2)
    resumed = Session.resume(path, Stub(), session.adapter, pinned=pinned)
    assert [s.kind for s in resumed.begin(messages).skipped] == ["PinnedMessage"]


def test_any_text_survives(path):
    odd = 'nul \x00, quote ", lone surrogate \ud800, emoji \U0001f600, line sep \u2028'
    session = Session(journal=path)
    session.begin([{"role": "user", "content": odd}]).finish("ok")
    assert Session.resume(path).history == session.history


def test_a_journal_that_is_not_there_is_told(tmp_path):
    with pytest.raises(TrajectoryError, match="cannot read the journal .*nowhere.jsonl"):
        Session.resume(tmp_path / "nowhere.jsonl")


def test_a_call_given_up_without_a_word_is_told(path):
    session = Session(journal=path)
    session.begin([TASK]).fail()
    assert events(path)[-1]["error"] == "abandoned"


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


def fill_disk(session, monkeypatch):
    """Let every further write of its journal find no room."""
    monkeypatch.setattr(session._observers.journal, "path", Path("/dev/full"))
    monkeypatch.setattr(session._observers.journal, "_check_ours", lambda found: None)


@needs_full
def test_a_full_disk_costs_no_edits(path, monkeypatch):
    session = Session(Stub(), MockAdapter(model()), journal=path)
    messages = run(session, 2)
    before = path.read_bytes()
    fill_disk(session, monkeypatch)
    with pytest.warns(LeylineWarning, match="cannot be written.*No space left"):
        run(session, 3, messages)
    monkeypatch.undo()
    assert session.version == 5
    assert session.view[3]["content"] == "stub"
    assert [note.kind for note in session.skipped] == ["OSError"]
    turn = session.begin([*session.history, result("x")])
    turn.fail()
    assert path.read_bytes() == before  # There is room again, but a hole as well.
    assert Session.resume(path, Stub(), MockAdapter(model())).version == 2


@needs_full
def test_a_journal_that_never_had_room_costs_no_edits():
    with pytest.warns(LeylineWarning, match="journal /dev/full cannot be written"):
        session = Session(Stub(), MockAdapter(model()), journal="/dev/full")
    run(session, 3)
    assert session.edits


def test_a_redaction_that_does_not_reach_the_journal_is_told(path):
    session = Session(None, MockAdapter(model()), journal=path)
    messages = run(session, 2)
    messages[5]["content"] = "unseen"
    messages = run(session, 1, messages)
    scratch = path.with_name(path.name + ".redacting")
    scratch.mkdir()
    session.edit(Edit(5, 6, ({**messages[5], "content": "gone"},), redact=True))
    with pytest.warns(LeylineWarning, match="still in the journal"):
        messages = run(session, 1, messages)
    assert b"unseen" in path.read_bytes()
    scratch.rmdir()
    run(session, 1, messages)
    assert b"unseen" not in path.read_bytes()


def test_of_two_that_resume_one_journal_the_first_is_refused(path):
    messages = run(Session(Stub(), MockAdapter(model()), journal=path), 1)
    one = Session.resume(path, Stub(), MockAdapter(model()))
    two = Session.resume(path, Stub(), MockAdapter(model()))
    run(two, 1, messages)
    with pytest.raises(TrajectoryError, match="continued by another session"):
        one.begin(messages)
    assert Session.resume(path).version == 2


def test_the_totals_of_a_resumed_session_are_those_of_the_one_left(path):
    session = Session(Stub(), MockAdapter(model()), journal=path)
    messages = run(session, 3)
    session.edit(Edit(40, 41))
    with pytest.warns(LeylineWarning, match="does not fit a view"):
        messages = run(session, 1, messages)
    session.begin(messages).fail("lost")
    before, after = session.stats(), Session.resume(path, Stub()).stats()
    assert (before.edits, before.skipped, before.failed) == (2, 1, 1)
    assert after == dataclasses.replace(before, policy_ms=0.0)
