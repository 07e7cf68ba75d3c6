from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent import Ask, LeylineWarning, Mode, Session, edit
from leyline_agent.policy import Policy, as_policy, parse
from leyline_agent.question import at_once
from leyline_agent.readers import read
from leyline_agent.signals import SUMMARY
from leyline_agent.testing import MockAdapter, extract
from leyline_agent.trajectory import Trajectory
from leyline_policies.summarise import Summarise

Run = Callable[..., Trajectory]

SMALL = Summarise(trigger=1000, keep=2, clear_at_least=300, max_tokens=100)


def question(policy: Policy, trajectory: Trajectory) -> Ask:
    (ask,) = (want for want in policy.wants(trajectory) if isinstance(want, Ask))
    return ask


def knowing(trajectory: Trajectory, answers: dict[str, str]) -> Trajectory:
    history = None if trajectory.original is trajectory else trajectory.original
    return trajectory.configured(original=history, pinned=trajectory.pinned, answers=answers)


@pytest.fixture
def long(run: Run) -> Trajectory:
    """Eight calls of about 250 tokens each, behind the task."""
    return run(*((f"cat {n}.py", f"line {n}\n" * 120) for n in range(8)))


def test_below_the_trigger_nothing_is_asked(long: Trajectory) -> None:
    assert list(Summarise().wants(long)) == []
    assert SMALL.wants(Trajectory(long.messages[:5])) == []


def test_it_asks_for_what_is_older_than_the_last_turns(long: Trajectory) -> None:
    ask = question(SMALL, long)
    instructions, told = ask.messages
    assert instructions["role"] == "system"
    assert "every constraint word for word" in instructions["content"]
    assert [f"cat {n}.py" in told["content"] for n in range(8)] == [True] * 6 + [False] * 2
    assert [f"line {n}\n" in told["content"] for n in range(8)] == [True] * 6 + [False] * 2
    assert "Fix the bug." not in told["content"]
    assert (ask.policy, ask.max_tokens) == ("summarise", 100)
    assert SMALL.propose(long) == []


def test_with_the_answer_it_edits_at_a_boundary(long: Trajectory) -> None:
    known = knowing(long, {question(SMALL, long).key: " It was found. \n"})
    (made,) = SMALL.wants(known)
    assert isinstance(made, edit.Edit)
    assert (made.start, made.end, made.mode, made.reason) == (1, 13, Mode.REPAIR, "summarised")
    note = {"role": "user", "content": f"{SUMMARY}\nIt was found."}
    assert made.replacement == (note,)
    edit.check([made], long.messages)
    view = knowing(long.edited([made]), dict(known.answers))
    assert SMALL.wants(view) == []


def test_an_answer_fits_though_the_run_has_gone_on(long: Trajectory, run: Run) -> None:
    ask = question(SMALL, Trajectory(long.messages[:13]))
    (made,) = SMALL.propose(knowing(long, {ask.key: "It was found."}))
    assert (made.start, made.end) == (1, 9)


def test_an_answer_fits_though_another_policy_has_cut_results(long: Trajectory) -> None:
    ask = question(SMALL, long)
    seen = long.edited([long.tool_results[1].replace("[Earlier output removed: old]")])
    (made,) = SMALL.propose(knowing(seen, {ask.key: "It was found."}))
    assert (made.start, made.end) == (1, 13)


def test_another_question_has_another_name(long: Trajectory) -> None:
    other = [*long.messages[:2], {**long.messages[2], "content": "other"}, *long.messages[3:]]
    keys = {
        question(SMALL, long).key,
        question(SMALL, Trajectory(other)).key,
        question(SMALL.model_copy(update={"model": "m"}), long).key,
        question(SMALL.model_copy(update={"instructions": "Short!"}), long).key,
        question(SMALL.model_copy(update={"keep": 3}), long).key,
    }
    assert len(keys) == 5
    assert question(SMALL, Trajectory(list(long.messages))).key in keys


def test_pinned_messages_stay_and_what_is_on_either_side_is_summarised_apart(
    long: Trajectory,
) -> None:
    pinned = long.configured(pinned=frozenset({6}))
    ask = question(SMALL, pinned)
    assert [f"cat {n}.py" in ask.messages[1]["content"] for n in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    (made,) = SMALL.propose(knowing(pinned, {ask.key: "First half."}))
    assert (made.start, made.end) == (1, 5)
    seen = pinned.edited([made])
    (other,) = SMALL.propose(knowing(seen, {question(SMALL, seen).key: "Second half."}))
    assert (other.start, other.end) == (4, 10)
    edit.check([other], seen.messages, seen.pinned)


def test_what_the_user_says_can_be_pinned(run: Run) -> None:
    long = run(*((f"cat {n}.py", f"line {n}\n" * 120) for n in range(4)))
    more = run(*((f"cat {n}.py", f"line {n}\n" * 120) for n in range(4, 8)))
    messages = [*long.messages, {"role": "user", "content": "Never push."}, *more.messages[1:]]
    policy = parse(
        "pinned:policy=(summarise:trigger=1000,keep=1,clear_at_least=300,max_tokens=100)"
    )
    session, view = Session(policy, fulfil=at_once(extract)), []
    for _ in range(8):
        turn = session.begin(messages)
        view = [message["content"] for message in turn.request["messages"]]
        turn.finish("Go on.")
    assert "Never push." in view
    assert [text.startswith(SUMMARY) for text in view[:4]] == [False, True, False, True]
    assert sum(text.startswith(SUMMARY) for text in view) == 2


def test_pairs_of_parallel_calls_stay_whole() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "task"}]
    for number in range(6):
        ids = [f"c{number}{letter}" for letter in "ab"]
        calls = [{"id": id, "function": {"name": "f", "arguments": "{}"}} for id in ids]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": id, "content": "text " * 99} for id in ids]
    trajectory = Trajectory(messages)
    (made,) = SMALL.propose(knowing(trajectory, {question(SMALL, trajectory).key: "Both."}))
    assert (made.start, made.end) == (1, 13)


def test_in_a_session_the_next_summary_takes_in_the_one_before(run: Run) -> None:
    whole = run(*((f"cat {n}.py", f"line {n}\n" * 120) for n in range(30))).messages
    session = Session(SMALL, MockAdapter(), fulfil=at_once(extract))
    for place in range(1, 61, 2):
        turn = session.begin(whole[:place])
        sent = [message["content"] for message in turn.request["messages"]]
        assert sum(text.startswith(SUMMARY) for text in sent) <= 1
        turn.finish({"choices": [{"message": whole[place]}]})
    made = [known for known in session.edits if known.policy == "summarise"]
    assert len(made) > 3
    assert session.skipped == ()
    assert Trajectory(session.view).tokens() < 2500
    assert all(
        receipt.edits[0].mode_used is Mode.REPAIR for receipt in session.receipts if receipt.edits
    )


@pytest.mark.parametrize(
    "answer", ["", "   ", "x" * 20_000, None, TimeoutError("slow"), ConnectionError("429")]
)
def test_without_a_good_answer_the_agent_goes_on_unedited(
    long: Trajectory, answer: str | Exception | None
) -> None:
    asked = []

    def fulfil(ask: Ask) -> str:
        asked.append(ask)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    session = Session(SMALL, fulfil=at_once(fulfil))
    session.begin(long.messages).finish("hm")
    with pytest.warns(LeylineWarning, match="summarise: .* its question has no answer"):
        turn = session.begin(long.messages)
    turn.finish("hm")
    for _ in range(80):
        turn = session.begin(long.messages)
        assert list(turn.request["messages"]) == list(long.messages)
        turn.finish("hm")
    assert len(asked) == 6


def test_a_summary_that_would_be_longer_than_what_is_left_is_not_used(long: Trajectory) -> None:
    ask = question(SMALL, long)
    seen = long.edited([result.replace("gone") for result in long.tool_results])
    eager = SMALL.model_copy(update={"trigger": 10, "clear_at_least": 10})
    ask = question(eager, seen)
    assert eager.propose(knowing(seen, {ask.key: "x" * 5000})) == []


def test_a_resumed_session_edits_as_the_first_would_have(long: Trajectory, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    session = Session(SMALL, journal=path, fulfil=at_once(extract))
    session.begin(long.messages).finish("hm")
    expected = session.begin(long.messages).request["messages"]  # Taken up, and then a crash.
    resumed = Session.resume(path, SMALL, fulfil=at_once(_never))
    assert resumed.begin(long.messages).request["messages"] == expected
    assert expected[1]["content"].startswith(SUMMARY)


def _never(ask: Ask) -> str:
    raise AssertionError("it is answered already")


RECORDED = [
    "mini_swe_agent_pr_816",
    "openhands_llm_completions",
    "swe_agent_demos",
    "swe_smith_tests",
]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_runs(trajectories_dir: Path, name: str) -> None:
    (run,) = read(trajectories_dir / "trajectories" / f"{name}.jsonl.gz", limit=1)
    whole = run.trajectory()
    messages = list(whole.messages)[:120]
    policy = Summarise(trigger=3000, keep=3, clear_at_least=1000, max_tokens=200)
    session = Session(
        policy, MockAdapter(), observations=whole.observations, fulfil=at_once(extract)
    )
    for place in [i for i, m in enumerate(messages) if m["role"] == "assistant" and i]:
        turn = session.begin(messages[:place])
        view = Trajectory(turn.request["messages"], observations=whole.observations)
        assert all(result.call is not None for result in view.tool_results)
        assert sum(str(m["content"]).startswith(SUMMARY) for m in view.messages) <= 1
        turn.finish({"choices": [{"message": messages[place]}]})
    assert session.skipped == ()
    assert len(session.edits) > 0


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A task, then calls with results, lone results, open calls and talk in any order."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "task"}]
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["call", "call", "call", "open", "orphan", "user", "system"]))
        function = {"name": "f", "arguments": json.dumps({"n": number})}
        call = {"id": f"c{number}", "type": "function", "function": function}
        text = draw(st.sampled_from(["short", "long " * 60]))
        if kind in ("call", "open"):
            messages.append({"role": "assistant", "content": text, "tool_calls": [call]})
        if kind in ("call", "orphan"):
            messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": text})
        if kind in ("user", "system"):
            messages.append({"role": kind, "content": text})
    return messages


@settings(deadline=None, max_examples=80)
@given(histories(), st.integers(1, 3), st.sets(st.integers(1, 20)), st.booleans())
def test_whatever_the_history_its_edits_are_legal_and_it_comes_to_rest(
    messages: list[dict[str, Any]], keep: int, pins: set[int], cut: bool
) -> None:
    policy = Summarise(trigger=50, keep=keep, clear_at_least=40, max_tokens=20)
    pinned = frozenset(pin for pin in pins if pin < len(messages))
    trajectory = Trajectory(messages).configured(pinned=pinned)
    answers: dict[str, str] = {}
    kept = [messages[pin] for pin in sorted(pinned)]
    for _ in range(40):
        wants = policy.wants(trajectory)
        assert len(wants) <= 1
        if not wants:
            break
        (want,) = wants
        if isinstance(want, Ask):
            assert want.key not in answers
            answers[want.key] = extract(want)
            trajectory = knowing(trajectory, answers)
        else:
            edit.check([want], trajectory.messages, trajectory.pinned)
            before = trajectory.tokens()
            trajectory = trajectory.edited([want])
            assert trajectory.tokens() < before
    assert policy.wants(trajectory) == []
    assert [trajectory.messages[pin] for pin in sorted(trajectory.pinned)] == kept


def test_as_text() -> None:
    made = parse("summarise:model=openai/gpt-5-mini,trigger=50000,keep=5")
    assert made == Summarise(model="openai/gpt-5-mini", trigger=50_000, keep=5)
    assert parse(str(made)) == made
    assert as_policy("summarise") == Summarise()
