"""Generated edits: each question has its answer, and what was removed is gone."""

from __future__ import annotations

from itertools import islice

from leyline_agent.serving.render import ChatRenderer
from leyline_evals.fidelity.cases import Case, Kind
from leyline_evals.fidelity.generated import generated_cases
from leyline_evals.fidelity.records import Selection


def generated(chat: ChatRenderer, seed: int = 0) -> list[Case]:
    return list(islice(generated_cases(chat, Selection(seed=seed, continuation=200)), 12))


def said(chat: ChatRenderer, case: Case, name: str) -> str:
    text: str = chat.tokenizer.decode(case.asked[name])
    return text


def test_the_kinds_take_turns(chat: ChatRenderer) -> None:
    assert [case.kind for case in generated(chat)[:3]] == [Kind.COPY, Kind.STALE, Kind.SECRET]


def test_the_same_seed_gives_the_same(chat: ChatRenderer) -> None:
    assert generated(chat) == generated(chat)
    assert generated(chat)[0] != generated(chat, seed=1)[0]


def test_a_line_to_be_copied_stands_twice_before_the_edit_and_once_after(
    chat: ChatRenderer,
) -> None:
    for case in generated(chat)[::3]:
        line = said(chat, case, "line")
        assert chat.tokenizer.decode(case.unedited).count(line) == 2
        assert chat.tokenizer.decode(case.edited).count(line) == 1
        assert case.continuation == case.asked["line"]


def test_a_changed_value_is_replaced(chat: ChatRenderer) -> None:
    for case in generated(chat)[1::3]:
        old, new = said(chat, case, "old"), said(chat, case, "new")
        assert old in chat.tokenizer.decode(case.unedited)
        assert old not in chat.tokenizer.decode(case.edited)
        assert new in chat.tokenizer.decode(case.edited)


def test_a_secret_is_gone(chat: ChatRenderer) -> None:
    for case in generated(chat)[2::3]:
        secret, control = said(chat, case, "secret"), said(chat, case, "control")
        assert secret in chat.tokenizer.decode(case.unedited)
        assert secret not in chat.tokenizer.decode(case.edited)
        assert control not in chat.tokenizer.decode(case.unedited)
