from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from leyline_agent.errors import StaleSession
from leyline_agent.message import Message
from leyline_agent.versions import Versions, is_of


@dataclass
class Made:
    base: int
    digest: str = ""
    messages: Sequence[Message] | None = None


class Some(Versions[Made]):
    def __init__(self, **versions: Made) -> None:
        self.id = "s"
        self.versions = OrderedDict((int(name[1:]), one) for name, one in versions.items())


def said(content: str) -> list[Message]:
    return [{"role": "user", "content": content}]


def test_digests_tell_a_retry() -> None:
    assert is_of(Made(1, "d", said("m")), 1, "d", said("other"))
    assert not is_of(Made(1, "d", said("m")), 1, "e", said("m"))
    assert not is_of(Made(1, "d"), 0, "d", None)


def test_without_digests_messages_tell_a_retry() -> None:
    held = Made(1, "", said("m2"))
    assert is_of(held, 1, "", said("m2"))
    assert is_of(held, 1, "", [])  # the only message there is its reply
    assert not is_of(held, 1, "", said("other"))
    assert not is_of(held, 0, "", said("m2"))
    assert not is_of(Made(1), 1, "", said("m2"))


def test_a_number_names_one_commit() -> None:
    first, second = Made(0, "a"), Made(1, "b")
    session = Some(v1=first, v2=second)
    assert session.newest is second
    assert session.made(2, 1, "b") is second
    assert session.made(3, 2, "c") is None
    with pytest.raises(StaleSession, match="version 2 of session 's' was made by another commit"):
        session.made(2, 1, "other")


def test_a_new_beginning_may_take_a_number_again() -> None:
    assert Some(v1=Made(0, "a")).made(1, 0, "other") is None
    assert Some().newest is None


@pytest.mark.parametrize(
    ("made", "other"),
    [(Made(0, "a"), False), (Made(0, ""), False), (Made(0, "b"), True), (Made(1, "a"), True)],
)
def test_what_was_made_meanwhile_is_noticed(made: Made, other: bool) -> None:
    session = Some(v1=Made(0, "a"))
    assert session.has_other(1, made) is other
    assert not session.has_other(2, made)
