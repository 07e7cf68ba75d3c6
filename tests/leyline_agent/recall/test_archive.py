"""Archives: what is kept comes back, to its own session only; size, order, redaction, damage."""

import sqlite3
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.recall import archive as module
from leyline_agent.recall.archive import EVICTED, FAILURES, REDACTED, Archive, Item


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path):
    return None if request.param == "memory" else tmp_path / "deep" / "archive.db"


def item(id, content="text", policy="p"):
    return Item(id, content, policy)


def test_what_is_kept_comes_back(place):
    archive = Archive("s", place)
    parts = [{"type": "text", "text": "a \ud800"}, {"type": "image_url", "image_url": {"url": "x"}}]
    assert archive.keep([item("r1", "ein Ümlaut \ud83d"), item("r2", parts, "q")]) == 0
    assert archive.find("r1") == ("ein Ümlaut \ud83d", "p", "")
    assert archive.find("r2") == (parts, "q", "")
    assert archive.find("r3") is None


def test_the_first_content_of_an_id_stays(place):
    archive = Archive("s", place)
    archive.keep([item("r1", "first")])
    archive.keep([item("r1", "second")])
    assert archive.find("r1").content == "first"


def test_a_session_reads_and_deletes_nothing_of_another(tmp_path):
    path = tmp_path / "archive.db"
    mine, theirs = Archive("s/1", path), Archive("s/2", path)
    mine.keep([item("r1", "mine")])
    assert theirs.find("r1") is None
    theirs.redact(["r1"])
    assert mine.find("r1").content == "mine"


def test_the_oldest_go_first(place):
    archive = Archive("s", place, max_bytes=100)
    assert archive.keep([item("r1", "a" * 40), item("r2", "b" * 40)]) == 0
    assert archive.keep([item("r3", "c" * 40)]) == 1
    assert archive.find("r1") == (None, "p", EVICTED)
    assert archive.find("r2").content == "b" * 40
    assert archive.keep([item("r4", "d" * 500)]) == 3
    assert [archive.find(f"r{n}").gone for n in (2, 3, 4)] == [EVICTED] * 3
    assert archive.keep([item("r1", "again")]) == 0
    assert archive.find("r1").content == "again"


def test_the_limit_is_that_of_the_whole_file(tmp_path):
    path = tmp_path / "archive.db"
    one, other = Archive("1", path, 100), Archive("2", path, 100)
    one.keep([item("r1", "a" * 60)])
    assert other.keep([item("r1", "b" * 60)]) == 1
    assert one.find("r1").gone == EVICTED
    assert other.find("r1").content == "b" * 60


def test_what_was_redacted_is_overwritten_and_never_kept_again(tmp_path):
    path = tmp_path / "archive.db"
    archive = Archive("s", path)
    archive.keep([item("r1", "sesame " * 3000), item("r2", "other")])
    assert b"sesame" in path.read_bytes()
    archive.redact(["r1", "r9"])
    assert b"sesame" not in path.read_bytes()
    archive.keep([item("r1", "sesame"), item("r9", "sesame")])
    assert archive.find("r1") == (None, "p", REDACTED)
    assert archive.find("r9").gone == REDACTED
    assert b"sesame" not in path.read_bytes()


def test_a_locked_file_is_waited_for_and_then_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WAIT_S", 0.3)
    path = tmp_path / "archive.db"
    archive = Archive("s", path)
    archive.keep([item("r1")])
    other = sqlite3.connect(path, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        archive.keep([item("r2")])
    threading.Timer(0.1, other.rollback).start()
    archive.keep([item("r2")])
    other.close()


def test_what_is_no_archive_is_an_error(tmp_path):
    path = tmp_path / "archive.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(FAILURES):
        Archive("s", path).keep([item("r1")])
    with pytest.raises(FAILURES):
        Archive("s", tmp_path).find("r1")


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 60)), max_size=30))
def test_any_sequence_stays_in_its_limit(kept):
    archive = Archive("s", None, max_bytes=100)
    contents = {}
    for number, size in kept:
        id, content = f"r{number}", "x" * size
        held = archive.find(id)
        if held is None or held.gone:
            contents[id] = content
        archive.keep([item(id, content)])
        held = {id: found for id in contents if not (found := archive.find(id)).gone}
        assert sum(len(found.content) + 2 for found in held.values()) <= 100
        assert all(found.content == contents[id] for id, found in held.items())
