"""Versions and sessions: which are kept, and what is given up first."""

import pytest

from leyline_agent.errors import StaleSession
from leyline_agent.receipt import Receipt
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.kv.slots import Extent, SlotPool
from leyline_agent.serving.kv.tree import PrefixTree
from leyline_agent.serving.sessions import KEPT_VERSIONS, SessionStore, Version


@pytest.fixture
def pool():
    return SlotPool(1000)


@pytest.fixture
def version(pool):
    def make(number, base=0, digest="d", size=10):
        sequence = CachedSequence(pool)
        sequence.extend(range(size))
        return Version(number, base, digest, [], sequence, size, Receipt(version=number))

    return make


@pytest.fixture
def store():
    return SessionStore(max_sessions=3)


def test_only_the_newest_versions_are_kept(store, version, pool):
    session = store.open("", "s")
    for number in range(1, 8):
        session.add(version(number, number - 1))
    assert list(session.versions) == [4, 5, 6, 7]
    assert session.newest.number == 7
    assert pool.num_used == 10 * KEPT_VERSIONS
    assert len(session.receipts) == 7


def test_the_same_number_replaces(store, version, pool):
    session = store.open("", "s")
    session.add(version(1))
    session.add(version(1, size=20))
    assert len(session.versions) == 1
    assert pool.num_used == 20


def test_a_commit_made_before_is_known_by_its_digest(store, version):
    session = store.open("", "s")
    session.add(version(2, 1, "abc"))
    assert session.made(2, 1, "abc") is session.newest
    assert session.made(3, 1, "abc") is None


@pytest.mark.parametrize(("base", "digest"), [(1, "other"), (3, "abc")])
def test_a_number_is_never_used_again(store, version, pool, base, digest):
    session = store.open("", "s")
    session.add(version(4, 1, "abc"))
    with pytest.raises(StaleSession, match="version 4 of session 's' was made by another commit"):
        session.made(4, base, digest)
    with pytest.raises(StaleSession):
        session.add(version(4, base, digest))  # made while this one was computed
    assert session.versions[4].digest == "abc"
    assert len(session.receipts) == 1
    assert pool.num_used == 10


def test_a_first_commit_under_a_taken_number_begins_anew(store, version, pool):
    """A client that was restarted counts from one again."""
    session = store.open("", "s")
    for number in (1, 2, 3):
        session.add(version(number, number - 1))
    assert session.made(1, 0, "new") is None
    session.add(version(1, 0, "new"))
    assert list(session.versions) == [1]
    assert session.made(2, 1, "anything") is None
    assert pool.num_used == 10


def test_without_a_digest_the_messages_tell_a_retry(store, version):
    session = store.open("", "s")
    made = version(2, 1, "")
    made.messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    session.add(made)
    again = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert session.made(2, 1, "", again) is made
    assert session.made(2, 1, "now with one", again) is made
    for other in ([], [{"role": "user", "content": "z"}], [*made.messages, again[0]], None):
        with pytest.raises(StaleSession):
            session.made(2, 1, "", other)


def test_the_least_recently_used_session_goes(store, version, pool):
    for name in "abc":
        store.open("", name).add(version(1))
    store.find("", "a")
    store.open("", "d")
    assert [session.id for session in store] == ["c", "a", "d"]
    assert store.find("", "b") is None
    assert pool.num_used == 20


def test_tenants_have_their_own_sessions(store):
    assert store.open("x", "s") is not store.open("y", "s")
    assert store.find("z", "s") is None


def test_a_dropped_session_takes_nothing_more(store, version, pool):
    session = store.open("", "s")
    session.add(version(1))
    assert store.drop("", "s")
    assert not store.drop("", "s")
    session.add(version(2))
    assert pool.num_used == 0
    assert not session.versions
    assert store.open("", "s") is not session


def test_what_is_given_up_first(store, version, pool):
    """Old versions, then the newest of idle sessions, and last the one that is being edited."""
    for name in "ab":
        for number in (1, 2):
            store.open("", name).add(version(number))
    a, b = store.find("", "a"), store.find("", "b")
    edited = b.versions[1]
    given = []
    for _ in store.give_up(edited.sequence):
        now = [(s.id, v.number) for s in (a, b) for v in s.versions.values() if v.evicted]
        given.append(next(each for each in now if each not in given))
    assert given == [("a", 1), ("a", 2), ("b", 2), ("b", 1)]
    assert pool.num_used == 0
    assert list(a.versions) == [1, 2]
    assert list(store.give_up(None)) == []


def test_a_trees_entries_know_whose_they_are(pool):
    tree = PrefixTree(pool)
    [whole] = pool.allocate(10)
    tree.insert(range(10), [whole], "one")
    shared, new = Extent(whole.start, whole.start + 6), pool.allocate(3)
    tree.insert([*range(6), 50, 51, 52], [shared, *new], "two")
    assert set(tree.owned("one")) == {shared, Extent(whole.start + 6, whole.end)}
    assert tree.owned("two") == new
    assert tree.owned("three") == []
