"""Questions of policies: answered beside the agent, kept, dropped with a reason, never for ever."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import leyline_agent as leyline
from leyline_agent import Ask, Edit, LeylineWarning, Session, Trajectory, asking
from leyline_agent.asking import MAX_FAILURES
from leyline_agent.question import Answered, Fulfil, at_once

TASK = {"role": "user", "content": "task"}


class Title(leyline.Policy):
    """Ask for a title of the conversation, and put it behind the task."""

    model: str = ""
    max_chars: int = 20
    budget: int = 1_000_000

    def edits(self, trajectory: Trajectory) -> Iterator[Edit | Ask]:
        if any(m["content"].startswith("Title") for m in trajectory.messages):
            return
        if "title" in trajectory.answers:
            title = {"role": "user", "content": f"Title: {trajectory.answers['title']}"}
            yield Edit(1, 1, (title,))
        else:
            words = {"role": "user", "content": "A title, please."}
            yield Ask("title", (words,), self.model, max_chars=self.max_chars, budget=self.budget)


def turns(session: Session, count: int) -> list[list[str]]:
    """The texts that go out in so many turns of a conversation."""
    sent = []
    messages = [m for m in session.history if not m["content"].startswith("Title")] or [TASK]
    for number in range(count):
        turn = session.begin(messages)
        sent.append([message["content"] for message in turn.request["messages"]])
        turn.finish(f"reply {number}")
        messages = [*session.history, {"role": "user", "content": "Go on."}]
    return sent


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_an_answer_is_there_from_the_next_turn_on() -> None:
    asked = []

    def fulfil(ask: Ask) -> str:
        asked.append(ask)
        return "Of bugs"

    session = Session(Title(model="some/model"), fulfil=at_once(fulfil))
    first, second, third = turns(session, 3)
    assert first == ["task"]
    assert second == ["task", "Title: Of bugs", "reply 0", "Go on."]
    assert third[:2] == second[:2]
    (ask,) = asked
    assert (ask.policy, ask.model, ask.key) == ("title", "some/model", "title")
    assert session.skipped == ()


def test_the_agent_does_not_wait() -> None:
    answer, asked = threading.Event(), []

    def slow(ask: Ask) -> str:
        asked.append(threading.current_thread())
        assert answer.wait(10)
        return "late"

    session = Session(Title(), fulfil=slow)
    assert all(len(sent) < 2 or sent[1] != "Title: late" for sent in turns(session, 5))
    assert len(asked) == 1  # The question is under way; it is not put again.
    assert asked[0] is not threading.main_thread()
    answer.set()
    asked[0].join()
    assert turns(session, 1)[0][1] == "Title: late"


def refuse(ask: Ask) -> str:
    raise TimeoutError("nobody there")


@pytest.mark.parametrize(
    ("fulfil", "kind", "told"),
    [
        (refuse, "TimeoutError", "nobody there"),
        (lambda ask: "  \n", "AdapterError", "the answer is empty"),
        (lambda ask: "x" * 21, "AdapterError", "the answer has 21 characters, more than 20"),
        (lambda ask: None, "AdapterError", "the answer is a NoneType, not text"),
        (lambda ask: {"content": "x"}, "AdapterError", "the answer is a dict, not text"),
        (lambda ask: Answered(None), "AdapterError", "the answer is a Answered, not text"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_answer_is_dropped_with_the_reason(fulfil: Fulfil, kind: str, told: str) -> None:
    session = Session(Title(), fulfil=at_once(fulfil))
    turns(session, 1)
    with pytest.warns(LeylineWarning, match=f"title: this turn skipped: {kind}: its question has"):
        sent = turns(session, 1)
    assert sent[0][1] == "reply 0"
    assert session.skipped[0].kind == kind
    assert told in session.skipped[0].detail


def test_failures_are_retried_ever_more_rarely_and_then_no_more() -> None:
    asked: list[int] = []
    number = 0

    def fulfil(ask: Ask) -> str:
        asked.append(number)
        raise ConnectionError("429: slow down")

    session = Session(Title(), fulfil=at_once(fulfil))

    def ask_for_a_title() -> None:
        nonlocal number
        for number in range(100):  # noqa: B007 - read by fulfil
            session.begin([TASK]).finish("hm")

    with pytest.warns(LeylineWarning, match="429: slow down"):
        ask_for_a_title()
    assert asked == [0, 1, 3, 7, 15, 31]
    assert len(asked) == MAX_FAILURES
    assert "6 failures in a row: nothing more is asked" in session.skipped[-1].detail
    assert len(session.skipped) == MAX_FAILURES


def test_a_success_forgets_failures() -> None:
    answers = iter([ConnectionError("down"), "Of bugs"])

    def fulfil(ask: Ask) -> str:
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    session = Session(Title(), fulfil=at_once(fulfil))
    with pytest.warns(LeylineWarning, match="down"):
        sent = turns(session, 3)
    assert sent[2][1] == "Title: Of bugs"


class Restless(leyline.Policy):
    """Ask something else every turn."""

    def edits(self, trajectory: Trajectory) -> Iterator[Ask]:
        yield Ask(str(len(trajectory.messages)), (TASK,), budget=100)


def test_what_questions_cost_is_bounded() -> None:
    asked = []

    def fulfil(ask: Ask) -> Answered:
        asked.append(ask)
        return Answered("so", 40)

    session = Session(Restless(), fulfil=at_once(fulfil))
    with pytest.warns(LeylineWarning, match="its budget is spent: .*100 tokens"):
        turns(session, 9)
    assert len(asked) == 3
    assert len(session.skipped) == 1


def test_costs_nobody_counted_are_estimated() -> None:
    session = Session(Restless(), fulfil=at_once(lambda ask: "so " * 100))
    with pytest.warns(LeylineWarning, match="its budget is spent"):
        turns(session, 9)
    assert 100 <= session._state.spent["restless"] <= 200


def test_a_question_that_is_never_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    never, asked = threading.Event(), []

    def hang(ask: Ask) -> str:
        asked.append(ask)
        never.wait(20)
        return "too late"

    session = Session(Title(), fulfil=hang)
    turns(session, 1)
    until(lambda: asked)
    monkeypatch.setattr(asking, "MAX_SECONDS", 0.0)
    with pytest.warns(LeylineWarning, match="no answer after 0 s"):
        turns(session, 1)
    monkeypatch.setattr(asking, "MAX_SECONDS", 300.0)
    until(lambda: len(asked) == 2)
    never.set()


def test_answers_are_in_the_journal_before_the_turn_that_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    session = Session(Title(), journal=path, fulfil=at_once(lambda ask: Answered("Of bugs", 7)))
    turns(session, 1)
    messages = [*session.history, TASK]
    session.begin(messages)  # Crashes here: the answer was taken up, and no edit committed.
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["event"] for event in events] == ["open", "begin", "commit", "answer", "begin"]
    del events[3]["v"], events[3]["time"]
    assert events[3] == {
        "event": "answer", "policy": "title", "key": "title", "tokens": 7, "text": "Of bugs",
    }  # fmt: skip

    resumed = Session.resume(path, Title(), fulfil=at_once(refuse))
    sent = resumed.begin(messages).request["messages"]
    assert sent[1]["content"] == "Title: Of bugs"
    assert resumed._state.spent == {"title": 7}


def test_what_was_answered_before_a_redaction_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    session = Session(Restless(), journal=path, fulfil=at_once(lambda ask: "the secret"))
    turns(session, 2)
    assert session._state.answers
    messages = [*session.history, TASK]
    session.edit(Edit(1, 2, ({"role": "assistant", "content": "gone"},), redact=True))
    session.begin(messages).finish("hm")
    assert session._state.answers == {}
    assert "the secret" not in path.read_text()
    assert '"text":null' in path.read_text()
    assert Session.resume(path, Restless())._state.answers == {}


def test_what_is_answered_while_something_is_redacted_is_not_taken() -> None:
    answer = threading.Event()

    def fulfil(ask: Ask) -> str:
        assert answer.wait(10)
        return "the secret"

    session = Session(Restless(), fulfil=fulfil)
    turns(session, 1)
    running = session._asking._running
    assert running is not None
    session.edit(Edit(1, 2, ({"role": "assistant", "content": "gone"},), redact=True))
    session.begin([*session.history, TASK]).finish("hm")
    answer.set()
    assert running.done.wait(10)
    session.begin([*session.history, TASK])
    assert "the secret" not in session._state.answers.values()


def test_nothing_is_asked_in_a_turn_that_redacts() -> None:
    asked: list[Ask] = []
    session = Session(Restless(), fulfil=at_once(lambda ask: asked.append(ask) or "so"))
    turns(session, 1)
    messages, before = [*session.history, TASK], len(asked)
    session.edit(Edit(1, 2, ({"role": "assistant", "content": "gone"},), redact=True))
    session.begin(messages).finish("hm")
    assert len(asked) == before
    session.begin([*messages, TASK])
    assert len(asked) == before + 1
