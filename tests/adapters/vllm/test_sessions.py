"""What the adapter remembers of sessions, and which handles it gives up."""

from __future__ import annotations

import pytest

from leyline_adapters.vllm.client.sessions import KEPT_VERSIONS, Session, Sessions, Version
from leyline_agent.errors import StaleSession
from leyline_agent.receipt import Receipt


def version(number: int, base: int | None = None, digest: str = "", handle: str = "") -> Version:
    return Version(
        number=number,
        base=number - 1 if base is None else base,
        digest=digest or f"d{number}",
        messages=[{"role": "user", "content": f"m{number}"}],
        tokens=[1, 2, number],
        handle=handle or f"h{number}",
        spliced_from=None,
        receipt=Receipt(),
    )


def test_the_oldest_versions_are_given_up() -> None:
    session = Session("s")
    for number in range(1, KEPT_VERSIONS + 3):
        session.add(version(number))
    assert list(session.versions) == [3, 4, 5]
    assert session.take_released() == ("h1", "h2")
    assert session.take_released() == ()


def test_a_retry_takes_the_place_of_what_it_repeats() -> None:
    session = Session("s")
    session.add(version(1))
    session.add(version(1, handle="again"))
    assert [held.handle for held in session.versions.values()] == ["again"]
    assert session.take_released() == ("h1",)


def test_another_commit_of_the_same_number_is_refused_and_held_by_nobody() -> None:
    session = Session("s")
    session.add(version(1))
    session.add(version(2))
    with pytest.raises(StaleSession, match="version 2 of session 's'"):
        session.add(version(2, digest="other", handle="lost"))
    assert session.take_released() == ("lost",)
    with pytest.raises(StaleSession):
        session.made(2, 1, "other", None)


def test_a_first_commit_again_begins_anew() -> None:
    session = Session("s")
    session.add(version(1))
    session.add(version(2))
    assert session.made(1, 0, "other", None) is None
    session.add(version(1, digest="other", handle="new"))
    assert [held.handle for held in session.versions.values()] == ["new"]
    assert set(session.take_released()) == {"h1", "h2"}


def test_sessions_are_found_and_the_least_recently_used_goes() -> None:
    sessions = Sessions(most=2)
    one = sessions.open("one")
    sessions.open("two")
    assert sessions.open("one") is one
    sessions.open("three")
    assert (sessions.find("two"), sessions.find("one"), len(sessions)) == (None, one, 2)


def test_a_dropped_session_has_its_handles_to_give_up() -> None:
    sessions = Sessions()
    sessions.open("one").add(version(1))
    dropped = sessions.drop("one")
    assert dropped is not None
    assert dropped.take_released() == ("h1",)
    assert sessions.drop("one") is None
