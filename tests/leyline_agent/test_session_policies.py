"""What a session takes of what policies and harnesses ask, and what it tells of the rest."""

import logging

import pytest
from agent_loop import LONG, SYSTEM, TASK, Stub, call, contents, result, run

from leyline_agent import (
    CallRefused,
    Edit,
    InvalidSpan,
    LeylineWarning,
    Mode,
    Policy,
    Reason,
    Session,
    policy,
)
from leyline_agent.testing import DeterministicModel, MockAdapter


def test_a_policy_that_raises_costs_its_own_edits_of_one_turn(caplog):
    @policy
    def broken(trajectory):
        yield Edit(2, 4)
        if len(trajectory.messages) < 8:
            raise ValueError("no idea")

    session = Session([broken, Stub()])
    with pytest.warns(LeylineWarning, match="policy broken: this turn skipped: Val") as told:
        messages = run(session, 3)
    assert [warning.filename for warning in told] == [run.__code__.co_filename]  # whose call it was
    assert caplog.text.count("no idea") == 1
    assert [e.policy for e in session.edits] == ["stub"]
    assert {(s.policy, s.kind) for s in session.skipped} == {("broken", "ValueError")}
    assert [e.policy for e in session.begin(messages).edits] == ["broken", "stub"]


def test_a_warning_that_is_an_error_leaves_the_session_as_it_was():
    @policy
    def broken(trajectory):
        raise ValueError("no idea")

    session = Session([broken, Stub()])
    session.edit(Edit(1, 1, (TASK,), reason="by hand"))
    told = r"no idea \(test_session_policies.py, line \d+, in broken\). Further cases are in"
    with pytest.raises(LeylineWarning, match=told):
        session.begin([SYSTEM, TASK])
    assert (session.version, session.is_idle) == (0, True)
    turn = session.begin([SYSTEM, TASK])
    assert (turn.commit.version, [e.reason for e in turn.edits]) == (1, ["by hand"])
    assert [s.policy for s in turn.skipped] == ["broken"]


def test_illegal_edits_are_skipped_one_by_one():
    @policy
    def wild(trajectory):
        if len(trajectory.messages) == 8:
            yield Edit(0, 1)
            yield Edit(2, 3)
            yield Edit(5, 6, ({**trajectory.messages[5], "content": "fine"},))
            yield Edit(70, 71)
            yield Edit(7, 8, ("text",))
            yield Edit(5, 6, ({**trajectory.messages[5], "content": "twice"},))

    session = Session(wild)
    messages = run(session, 3)
    with pytest.warns(LeylineWarning, match="policy wild: an edit of messages") as told:
        turn = session.begin(messages)
    assert len(told) == 1
    assert [(e.start, e.end) for e in turn.edits] == [(5, 6)]
    assert {(s.where, s.kind) for s in turn.skipped} == {
        ("messages [0, 1)", "PinnedMessage"),
        ("messages [2, 3)", "BrokenToolPair"),
        ("messages [70, 71)", "InvalidSpan"),
        ("messages [7, 8)", "EditError"),
        ("messages [5, 6)", "OverlappingSpans"),
    }
    assert contents(turn.request["messages"])[5] == "fine"


def test_a_policy_looping_over_its_own_edits_is_stopped(caplog):
    @policy
    def nibble(trajectory):
        for found in trajectory.tool_results:
            yield found.replace(found.content[:-1])

    session = Session(nibble)
    with pytest.warns(LeylineWarning, match="nibble: .* PolicyLoop: .* edited 3 times before"):
        messages = run(session, 8)
    assert len(session.begin(messages).request["messages"][3]["content"]) == len(LONG) - 4
    assert "PolicyLoop" in caplog.text
    assert caplog.text.count("PolicyLoop") == 1


def test_folding_more_into_a_summary_is_no_loop():
    @policy
    def rolling(trajectory):
        if len(trajectory.messages) > 4:
            summary = {"role": "user", "content": f"{len(trajectory.original.messages)} so far"}
            yield Edit(2, len(trajectory.messages), (summary,))

    session = Session(rolling)
    run(session, 9)
    assert session.skipped == ()
    assert len(session.view) == 4


def test_an_edit_that_changes_nothing_is_none():
    @policy
    def same(trajectory):
        for found in trajectory.tool_results:
            yield found.replace("stub")

    session = Session(same)
    run(session, 3)
    assert len(session.edits) == 2
    assert session.skipped == ()


def test_a_slow_policy_is_logged_with_its_time(caplog):
    session = Session(Stub(), policy_deadline=0.0)
    with caplog.at_level(logging.WARNING, "leyline"):
        session.begin([TASK])
    assert "policy stub took" in caplog.text


def test_policies_see_the_history_the_tools_and_the_pins():
    seen = []

    @policy
    def watch(trajectory):
        seen.append(trajectory)
        return ()

    tools = [{"type": "function", "function": {"name": "bash"}}]
    session = Session([Stub(), watch], pinned=lambda m: m["content"] == "keep me")
    messages = run(session, 3)
    messages.append({"role": "user", "content": "keep me"})
    session.begin(messages, tools=tools)
    last = seen[-1]
    assert contents(last.messages)[3] == "stub"
    assert last.original.messages == tuple(messages)
    assert (last.tools, last.pinned) == (tuple(tools), {8})


def test_token_estimates_are_calibrated_by_usage():
    seen = []

    @policy
    def watch(trajectory):
        seen.append(trajectory.tokens())
        return ()

    session = Session(watch)
    text = {"role": "user", "content": "x" * 1000}
    answer = {
        "choices": [{"message": {"role": "assistant", "content": "ok"}}],
        "usage": {"prompt_tokens": 500},
    }
    session.begin([text]).finish(answer)
    session.begin([text, answer["choices"][0]["message"], text])
    assert seen == [250, 1001]


def test_pinned_messages_are_left_alone():
    session = Session(Stub())
    messages = run(session, 2)
    session.pin(3)
    turn = session.begin(messages)
    assert turn.edits == ()
    assert [s.kind for s in turn.skipped] == ["PinnedMessage"]
    with pytest.raises(InvalidSpan, match="history has 5 messages"):
        session.pin(17)


def test_the_harness_declares_edits_for_the_next_turn():
    session = Session()
    messages = run(session, 3)
    session.edit(Edit(3, 4, (result(2, "short"),), reason="by hand"))
    session.begin(messages).fail()
    turn = session.begin(messages)
    assert contents(turn.request["messages"])[3] == "short"
    turn.finish("ok")
    assert session.begin(messages).commit.edits == ()
    assert [e.reason for e in session.edits] == ["by hand"]


@pytest.mark.parametrize(
    ("asked", "floor", "has", "used", "reason"),
    [
        (Mode.AMORTIZE, None, set(Mode), Mode.AMORTIZE, Reason.ASKED),
        (Mode.AMORTIZE, Mode.REPAIR, set(Mode), Mode.REPAIR, Reason.USER_FLOOR),
        (Mode.FORGET, Mode.REPAIR, set(Mode), Mode.FORGET, Reason.ASKED),
        (
            Mode.AMORTIZE, None, {Mode.REPAIR, Mode.FORGET},
            Mode.REPAIR, Reason.ENGINE_CANNOT_SPLICE,
        ),
        (Mode.REPAIR, None, set(), Mode.FORGET, Reason.ENGINE_CANNOT_SPLICE),
    ],
)  # fmt: skip
def test_the_mode_is_the_strongest_asked_for(asked, floor, has, used, reason):
    capabilities = MockAdapter().capabilities.model_copy(update={"modes": frozenset(has)})
    adapter = MockAdapter(DeterministicModel(call(2), call(4), "ok"), capabilities=capabilities)
    session = Session(Stub(mode=asked), adapter, mode_floor=floor)
    messages = [SYSTEM, TASK]
    for number in (2, 4):
        turn = session.begin(messages)
        turn.finish(adapter.complete(turn.request))
        messages += [call(number), result(number)]
    turn = session.begin(messages)
    assert [e.mode for e in turn.commit.edits] == [used]
    (told,) = turn.finish(adapter.complete(turn.request)).edits
    assert (told.mode_asked, told.mode_used, told.reason) == (asked, used, reason)


def test_an_edit_no_mode_is_strong_enough_for_is_skipped():
    capabilities = MockAdapter().capabilities.model_copy(
        update={"modes": frozenset({Mode.AMORTIZE})}
    )
    session = Session(Stub(mode=Mode.FORGET), MockAdapter(capabilities=capabilities))
    messages = run(session, 2)
    with pytest.warns(LeylineWarning, match="the engine cannot forget"):
        turn = session.begin(messages)
    assert [s.kind for s in turn.skipped] == ["UnsupportedMode"]


def test_a_redacting_policy_that_raises_lets_nothing_go_out():
    class Broken(Policy):
        """Redacts, if it can."""

        @property
        def redacts(self):
            return True

        def edits(self, trajectory):
            if len(trajectory.messages) > 2:
                raise ValueError("no idea")
            return ()

    session = Session([Broken(), Stub()])
    messages = run(session, 1)
    session.edit(Edit(3, 4, (result(2, "mine"),)))
    for _ in range(2):
        with pytest.raises(
            CallRefused, match="policy broken redacts, and raised ValueError: no id"
        ):
            session.begin(messages)
    assert session.version == 1
    assert [edit.policy for edit in session._declared] == ["harness"]  # Nothing declared is lost.
