"""An archive that fails costs no turn: one warning, a reason on record, recalls go on in memory."""

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from recalling import TASK, TOOLS, Harness, ids_in, output, recalls, runs

from leyline_agent import Edit, LeylineWarning, Session
from leyline_agent.recall import archive
from leyline_agent.recall.archive import Archive
from leyline_agent.recall.options import Recall
from leyline_agent.testing import DeterministicModel


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """A lock that stays is waited for a moment only."""
    monkeypatch.setattr(archive, "_WAIT_S", 0.3)


SCRIPT = (runs(), runs(), recalls(0), runs(), "done")


def corrupt(path):
    path.write_bytes(b"this is no database " * 500)


def a_folder(path):
    path.mkdir()


def under_a_file(path):
    path.parent.rmdir()
    path.parent.write_text("a file")


def another_table(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE kept (id TEXT)")
    database.close()


@pytest.mark.parametrize("damage", [corrupt, a_folder, under_a_file, another_table])
def test_a_file_that_is_no_archive(tmp_path, damage):
    path = tmp_path / "deep" / "archive.db"
    path.parent.mkdir()
    damage(path)
    agent = Harness(*SCRIPT, recall=path)
    agent.turns(2)
    with pytest.warns(LeylineWarning, match="cannot be written") as told:
        agent.turn()
    agent.turn()
    assert len(told) == 1
    assert agent.session.view[-5]["content"] != output(0)
    shown = [m["content"] for m in agent.requests[3]["messages"]][-1]
    assert shown == output(0)
    (note,) = {note.kind: note for note in agent.session.skipped}.values()
    assert note.policy == "recall"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_disk_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    agent = Harness(*SCRIPT, recall=tmp_path / "archive.db")
    with pytest.warns(LeylineWarning, match="cannot be written"):
        agent.turns(3)


def test_a_file_that_may_not_be_written(tmp_path, monkeypatch):
    """As a read-only or full disk has it: sqlite says so when it writes."""
    path = tmp_path / "archive.db"
    agent = Harness(*SCRIPT, recall=path)
    agent.turns(2)

    def full(self, items):
        raise sqlite3.OperationalError("database or disk is full")

    keep = Archive.keep
    monkeypatch.setattr(
        Archive, "keep", lambda self, items: (full if self.path else keep)(self, items)
    )
    with pytest.warns(LeylineWarning, match="database or disk is full"):
        agent.turn()
    assert agent.requests[3]["messages"][-1]["content"] == output(0)


def test_a_full_disk(tmp_path, monkeypatch):
    """A file that may not grow: what sqlite does when there is no space left."""
    path = tmp_path / "archive.db"
    Archive("other", path).keep([])
    connect = sqlite3.connect

    def small(place, *args, **kwargs):
        made = connect(place, *args, **kwargs)
        if place == path:
            made.execute("PRAGMA max_page_count = 1")
        return made

    monkeypatch.setattr(sqlite3, "connect", small)
    agent = Harness(runs(), runs(), recalls(0), "done", recall=path)
    long = {"role": "tool", "tool_call_id": "c", "content": "long " * 50_000}
    agent.messages += [runs() | {"tool_calls": [{**runs()["tool_calls"][0], "id": "c"}]}, long]
    agent.turn()
    with pytest.warns(LeylineWarning, match="database or disk is full"):
        agent.turn()
    agent.turn()
    assert agent.requests[-1]["messages"][-1]["content"].startswith("long long")


def test_a_locked_file(tmp_path):
    path = tmp_path / "archive.db"
    agent = Harness(*SCRIPT, recalls(0), "done", recall=path)
    agent.turns(2)
    Archive("other", path).keep([])
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.warns(LeylineWarning, match="locked"):
        agent.turn()
    other.rollback()
    other.close()
    assert agent.requests[3]["messages"][-1]["content"] == output(0)


def test_warnings_that_are_errors_cost_nothing(tmp_path):
    """As everywhere in these tests: the turn goes on, the reason is on record."""
    path = tmp_path / "archive.db"
    corrupt(path)
    agent = Harness(*SCRIPT, recall=path)
    agent.turns(4)
    assert agent.session.stats().recalls == 1
    assert agent.session.skipped


def test_an_archive_that_breaks_later_is_told_to_the_model(tmp_path):
    path = tmp_path / "archive.db"
    agent = Harness(runs(), runs(), runs(), recalls(0), "done", recall=path)
    agent.turns(3)
    corrupt(path)
    with pytest.warns(LeylineWarning, match="cannot be written|cannot be read"):
        agent.turn()
    assert "cannot be read" in agent.requests[-1]["messages"][-1]["content"]


def test_a_redaction_that_fails_is_told_and_tried_again(tmp_path):
    path = tmp_path / "archive.db"
    agent = Harness(*[runs()] * 6, recall=path)
    agent.turns(3)
    assert b"line of output 0" in path.read_bytes()
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    stub = agent.session.view[3]
    agent.session.edit(Edit(3, 4, ({**stub, "content": "gone"},), redact=True))
    with pytest.warns(LeylineWarning, match="redacted is still in the archive"):
        agent.turn()
    other.rollback()
    other.close()
    assert b"line of output 0" in path.read_bytes()
    agent.turn()
    assert b"line of output 0" not in path.read_bytes()


def test_a_redaction_of_what_was_never_kept_does_not_warn(tmp_path):
    path = tmp_path / "archive.db"
    corrupt(path)
    agent = Harness(*[runs()] * 4, recall=path, policies=None)
    agent.turns(2)
    agent.session.edit(Edit(3, 4, ({**agent.session.view[3], "content": "gone"},), redact=True))
    agent.turns(2)
    (note,) = agent.session.skipped
    assert "Nothing was in it" in note.detail


def test_sessions_in_one_file_are_apart(tmp_path):
    path = tmp_path / "archive.db"
    first = Harness(*SCRIPT, recall=path, id="same")
    first.turns(3)
    (id,) = set(ids_in(first.session.view))
    other = Harness(recalls(id), "done", recall=path, id="same")
    other.turn()
    assert f"no output {id!r}" in other.requests[-1]["messages"][-1]["content"]


@pytest.mark.parametrize("kept", ["memory", "file"])
def test_a_resumed_session_answers_what_was_cut_before(tmp_path, kept):
    recall = True if kept == "memory" else Recall(tmp_path / "archive.db")
    agent = Harness(*SCRIPT, recalls(0), "done", journal=tmp_path / "j", recall=recall)
    agent.turns(4)
    before = agent.session
    agent.session = Session.resume(tmp_path / "j", "keep_last:n=1", agent.adapter, recall=recall)
    assert agent.session.view == before.view
    assert agent.session.edits == before.edits
    assert agent.session.stats().recalls == 1
    assert agent.session.stats().turns == before.stats().turns
    agent.messages.append({"role": "user", "content": "Go on."})
    with pytest.warns(LeylineWarning, match="asked again .* keep_last had cut"):
        agent.turn()
    assert agent.requests[-1]["messages"][-1]["content"] == output(0)
    assert agent.requests[-1]["tools"][-1]["function"]["name"] == "leyline_recall"


def test_a_resumed_session_names_who_cut_what_is_recalled_again(tmp_path):
    script = runs(), runs(), recalls(0), runs(), recalls(0), "done"
    agent = Harness(*script, journal=tmp_path / "j")
    agent.turns(3)
    agent.session = Session.resume(tmp_path / "j", "keep_last:n=1", agent.adapter, recall=True)
    with pytest.warns(LeylineWarning, match="that keep_last had cut"):
        agent.turn()


def test_a_resumed_session_counts_the_same_turns(tmp_path):
    """A call asked again, with an edit, that is answered by a recall: no edit ahead."""
    agent = Harness(*[runs()] * 3, recalls("r0"), "done", journal=tmp_path / "j", policies=None)
    agent.turns(3)
    agent.session.edit(Edit(3, 4, ({**agent.messages[3], "content": "old"},)))
    agent.messages = agent.messages[:-2]
    agent.turn()
    resumed = Session.resume(tmp_path / "j", None, agent.adapter, recall=True)
    assert resumed.stats().turns == agent.session.stats().turns == 4
    assert resumed.stats().hidden == 1


def test_a_session_that_began_without_recall_goes_on_without(tmp_path):
    agent = Harness(*SCRIPT[:2], "done", journal=tmp_path / "j", recall=False)
    agent.turns(2)
    session = Session.resume(tmp_path / "j", "keep_last:n=1", agent.adapter, recall=True)
    assert session.begin(agent.messages, tools=TOOLS).request["tools"] is TOOLS
    assert session.skipped[0].kind == "NotFromTheFirst"


def test_a_session_that_goes_on_without_its_recall_says_so(tmp_path, caplog):
    agent = Harness(*SCRIPT[:2], "done", journal=tmp_path / "j")
    agent.turns(2)
    session = Session.resume(tmp_path / "j", "keep_last:n=1", agent.adapter)
    assert session.skipped[0].kind == "RecallLost"
    assert "recall" in caplog.text


def test_sessions_in_many_threads_share_a_file(tmp_path):
    path = tmp_path / "archive.db"

    def run(number):
        script = [runs(), runs(), recalls(0), *[runs()] * 5, "done"]
        agent = Harness(*script, recall=path)
        agent.outputs = count(10 * number)
        agent.turns(8)
        shown = agent.requests[3]["messages"][-1]["content"]
        return agent.session.skipped, shown == output(10 * number)

    with ThreadPoolExecutor(8) as pool:
        for skipped, shown in pool.map(run, range(16)):
            assert skipped == ()
            assert shown


def test_threads_share_a_session(tmp_path):
    agent = Harness(runs(), runs(), recalls(0), "done", recall=tmp_path / "archive.db")
    agent.turns(2)
    model = DeterministicModel("done", repeat=True)
    barrier = threading.Barrier(6)

    def fork(number):
        turn = agent.session.begin(
            [*agent.messages, {"role": "user", "content": f"fork {number}"}], tools=TOOLS
        )
        ids = ids_in(turn.request["messages"])
        barrier.wait(10)
        assert turn.advance(recalls(*ids)([]))
        shown = turn.request["messages"][-1]["content"]
        barrier.wait(10)
        turn.finish(model.create(messages=TASK))
        return shown

    with ThreadPoolExecutor(6) as pool, pytest.warns(LeylineWarning, match="asked again"):
        assert set(pool.map(fork, range(6))) == {output(0)}
    stats = agent.session.stats()
    assert (stats.turns, stats.hidden, stats.recalls) == (8, 6, 6)
    assert agent.session.is_idle
