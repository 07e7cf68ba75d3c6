from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.signals import is_cut
from leyline_policies.head_and_tail import head_and_tail


def test_both_ends_stay_around_a_line_that_says_how_much_is_gone() -> None:
    text = "".join(str(n % 10) for n in range(1000))
    short = head_and_tail(text, 100)
    head, line, tail = short.split("\n")
    assert (text.startswith(head), text.endswith(tail)) == (True, True)
    assert line == f"[... {1000 - len(head) - len(tail)} characters removed ...]"
    assert len(head) - len(tail) in (0, 1)
    assert 98 <= len(short) <= 100


def test_without_room_for_the_line_only_the_beginning_stays() -> None:
    assert head_and_tail("x" * 100, 10) == "x" * 10


@given(st.text(max_size=300), st.integers(1, 300))
def test_it_never_exceeds_the_limit_and_never_touches_what_fits(text: str, limit: int) -> None:
    short = head_and_tail(text, limit)
    assert len(short) <= limit
    assert head_and_tail(short, limit) == short
    if len(text) <= limit:
        assert short == text
    elif limit >= 50:
        assert is_cut(short)
