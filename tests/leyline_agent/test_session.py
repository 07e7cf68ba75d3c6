import threading

import pytest
from agent_loop import LONG, SYSTEM, TASK, Stub, call, contents, result, run

from leyline_agent import (
    Edit,
    LeylineError,
    Mode,
    Reason,
    Session,
    StaleSession,
    TrajectoryError,
    policy,
)
from leyline_agent.message import copy, digest, view_digest


def test_a_turn_sends_the_messages_and_records_the_reply():
    session = Session()
    turn = session.begin([SYSTEM, TASK], tools=[{"type": "function"}], model="m")
    assert turn.request == {
        "model": "m", "messages": [SYSTEM, TASK], "tools": [{"type": "function"}],
    }  # fmt: skip
    turn.finish("I look.")
    assert session.version == 1
    assert session.view == session.history == [
        SYSTEM, TASK, {"role": "assistant", "content": "I look."},
    ]  # fmt: skip


def test_edits_stay_committed_and_the_history_whole():
    session = Session(Stub())
    messages = run(session, 4)
    turn = session.begin(messages)
    assert contents(turn.request["messages"])[3::2] == ["stub", "stub", "stub", LONG]
    assert contents(session.history)[3::2] == [LONG, LONG, LONG]
    assert [m for m in messages if m["content"] == "stub"] == []
    turn.finish("done")
    assert [(e.version, e.start, e.end) for e in session.edits] == [(3, 3, 4), (4, 5, 6), (5, 7, 8)]


def test_the_commit_names_base_version_digest_and_edits():
    session = Session(Stub(), id="run-1")
    messages = run(session, 2)
    turn = session.begin(messages)
    commit = turn.commit
    assert (commit.session, commit.base_version, commit.version) == ("run-1", 2, 3)
    assert commit.base_len == len(session.view) == 5
    assert [e.model_dump(exclude_defaults=True) for e in commit.edits] == [
        {
            "messages": (3, 4), "count": 1, "mode": Mode.FORGET,
            "reason": "old", "policy": "stub",
        }
    ]  # fmt: skip
    assert commit.view_digest == view_digest(digest(m) for m in turn.request["messages"])


def test_unedited_messages_are_the_callers_own_and_edited_ones_ours():
    session = Session(Stub())
    messages = run(session, 3)
    sent = session.begin(messages).request["messages"]
    assert sent[0] is messages[0]
    assert sent[-1] is messages[-1]
    sent[3]["content"] = "scribble"
    assert session.begin(messages).request["messages"][3]["content"] == "stub"


def test_changes_by_the_caller_do_not_reach_the_history():
    session = Session()
    messages = [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Fix it."}]}]
    session.begin(messages).finish("ok")
    messages[1]["content"][0]["text"] = "Break it."
    assert session.history[1]["content"][0]["text"] == "Fix it."


def test_bookkeeping_of_the_harness_is_no_rewrite_and_is_sent():
    session = Session(Stub())
    messages = run(session, 3)
    hinted = copy(messages[-1])
    hinted["content"] = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    echoed = {**messages[4], "reasoning_content": "hm", "extra": {"cost": 1}}
    turn = session.begin([*messages[:4], echoed, *messages[5:-1], hinted])
    assert turn.commit.base_len == len(session.view)
    assert turn.request["messages"][4] == echoed
    assert turn.request["messages"][-1] == hinted


def test_our_own_view_coming_back_is_no_rewrite():
    session = Session(Stub())
    plain = Session(Stub())
    messages, view = run(plain, 4), [SYSTEM, TASK]
    for turn_number in range(4):
        turn = session.begin(view)
        reply = call(2 + 2 * turn_number)
        turn.finish(reply)
        view = [*turn.request["messages"], reply, result(2 + 2 * turn_number)]
    assert session.history == plain.history
    assert session.view == plain.view
    assert session.edits == plain.edits
    assert session.begin(view).commit.view_digest == plain.begin(messages).commit.view_digest


def test_our_view_comes_back_though_messages_were_dropped():
    @policy
    def drop_first_call(trajectory):
        if len(trajectory.tool_calls) > 2:
            yield trajectory.drop_call(trajectory.tool_calls[0])

    session = Session(drop_first_call)
    messages = run(session, 3)
    view = [*session.view, messages[-1]]
    turn = session.begin(view)
    assert turn.commit.base_len == len(session.view)
    turn.finish("done")
    assert session.history == [*messages, {"role": "assistant", "content": "done"}]


def test_a_rewrite_opens_a_branch_and_drops_the_edits_behind_it():
    session = Session(Stub())
    messages = run(session, 5)
    assert len(session.edits) == 3
    rewritten = [*messages[:7], result(6, LONG + "rewritten"), {"role": "user", "content": "Go."}]
    turn = session.begin(rewritten)
    assert (turn.commit.base_version, turn.commit.base_len) == (5, 7)
    assert contents(turn.request["messages"])[3::2] == ["stub", "stub", LONG + "rewritten"]
    turn.finish("ok")
    assert [e.start for e in session.edits] == [3, 5]
    assert session.history[:9] == rewritten


def test_a_rewrite_inside_what_an_edit_covers_shows_the_rest_again():
    @policy
    def fold_all(trajectory):
        if len(trajectory.messages) > 6:
            yield Edit(2, 6, ({"role": "user", "content": "summary"},))

    session = Session(fold_all)
    messages = run(session, 4)
    assert contents(session.view)[2] == "summary"
    turn = session.begin([*messages[:4], {"role": "user", "content": "Stop."}])
    assert turn.commit.base_len == 2
    assert turn.request["messages"] == [*messages[:4], {"role": "user", "content": "Stop."}]


def test_the_harness_reply_wins_over_the_recorded_one():
    session = Session()
    session.begin([SYSTEM, TASK]).finish("I think so.")
    shortened = {"role": "assistant", "content": "Yes."}
    turn = session.begin([SYSTEM, TASK, shortened, {"role": "user", "content": "Sure?"}])
    assert turn.commit.base_len == 2
    turn.finish("Sure.")
    assert session.history[2] == shortened


def test_an_older_branch_is_found_again():
    session = Session(Stub())
    messages = run(session, 3)
    other = run(session, 2, [*messages[:4], {"role": "user", "content": "Try again."}])
    assert session.version == 5
    turn = session.begin(messages)
    assert turn.commit.base_version == 3
    assert session.begin(other).commit.base_version == 5


def test_nothing_in_common_starts_from_the_beginning():
    session = Session()
    run(session, 2)
    commit = session.begin([{"role": "user", "content": "Something else."}]).commit
    assert (commit.base_version, commit.version, commit.base_len) == (0, 3, 0)


def test_a_failed_turn_commits_nothing_and_its_repetition_keeps_its_number():
    session = Session(Stub())
    messages = run(session, 2)
    first = session.begin(messages)
    first.fail(TimeoutError("slow"))
    assert session.version == 2
    again = session.begin(messages)
    assert again.commit == first.commit
    again.finish("done")
    assert session.version == 3
    assert session.stats().failed == 1


def test_an_unanswered_turn_leaves_its_base_to_the_next():
    session = Session()
    messages = run(session, 2)
    lost = session.begin(messages)
    again = session.begin(messages)
    assert again.commit.base_version == lost.commit.base_version
    assert again.commit.version == lost.commit.version + 1


def test_other_messages_after_a_failure_get_a_number_of_their_own():
    session = Session()
    session.begin([SYSTEM, TASK]).fail()
    assert session.begin([SYSTEM, {"role": "user", "content": "Other."}]).commit.version == 2


def test_a_closed_turn_stays_closed():
    turn = Session().begin([TASK])
    turn.finish("ok")
    with pytest.raises(LeylineError, match="closed already"):
        turn.fail("late")


def test_concurrent_calls_fork_from_the_version_at_their_begin():
    session = Session()
    messages = run(session, 1)
    left, right = session.begin(messages), session.begin(messages)
    left.finish("left")
    right.finish("right")
    assert left.commit.base_version == right.commit.base_version == 1
    more = {"role": "user", "content": "And?"}
    for reply, version in (("left", 2), ("right", 3)):
        answered = [*messages, {"role": "assistant", "content": reply}, more]
        assert session.begin(answered).commit.base_version == version


def test_expected_version_refuses_a_stale_caller():
    session = Session()
    messages = run(session, 2)
    session.begin(messages, expected_version=2).fail()
    with pytest.raises(StaleSession, match="at version 2, not 1"):
        session.begin(messages, expected_version=1)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([], "no messages"),
        ([TASK, "hello"], "message 1 is a str"),
        ([{"content": "x"}], "message 0 has no role"),
    ],
)
def test_malformed_messages_are_refused(messages, problem):
    with pytest.raises(TrajectoryError, match=problem):
        Session().begin(messages)


def test_an_unknown_reply_becomes_known_when_the_harness_sends_it():
    session = Session(Stub())
    session.begin([SYSTEM, TASK]).finish(object())
    assert session.history == [SYSTEM, TASK]
    turn = session.begin([SYSTEM, TASK, call(2), result(2)])
    assert turn.commit.base_len == 2
    turn.finish(None)
    assert len(session.history) == 4


@pytest.mark.parametrize("answer", [5, None])
def test_a_receipt_says_that_the_answer_is_no_reply(answer):
    receipt = Session().begin([SYSTEM, TASK]).finish(answer)
    assert receipt.reason is Reason.NO_RECEIPT
    assert receipt.detail == "the answer is no reply that can be read"
    assert Session().begin([SYSTEM, TASK]).finish("Hello.").detail == ""


def test_redaction_leaves_a_tombstone_and_holds_for_the_message_sent_again():
    session = Session()
    messages = run(session, 2)
    messages[3]["content"] = "the password is hunter2"
    session.edit(Edit(3, 4, (result(2, "[removed]"),), redact=True))
    turn = session.begin(messages)
    assert [e.mode for e in turn.commit.edits] == [Mode.FORGET]
    turn.finish("ok")
    assert "hunter2" not in str([session.history, session.view])
    turn = session.begin([*messages, {"role": "assistant", "content": "ok"}, TASK])
    assert turn.commit.base_len == len(session.view)
    assert contents(turn.request["messages"])[3] == "[removed]"
    rewritten = session.begin([SYSTEM, messages[1], messages[2], messages[3], TASK])
    assert "hunter2" not in str(rewritten.request)


def test_redaction_survives_a_rewrite_before_it():
    session = Session()
    messages = run(session, 2)
    session.edit(Edit(2, 6, (), redact=True))
    session.begin(messages).finish("ok")
    turn = session.begin([*messages[:4], TASK])
    assert LONG not in str(turn.request)
    assert contents(turn.request["messages"])[2:4] == ["[redacted]", "[redacted]"]


def test_sessions_are_safe_between_threads():
    session = Session(Stub())
    failures = []

    def work(name):
        try:
            run(session, 5, [SYSTEM, {"role": "user", "content": f"task {name}"}])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({r.version for r in session.receipts}) == 20
    assert session.stats().turns == 20


def test_an_edit_that_a_rewritten_history_would_split_is_dropped():
    """The harness drops a message behind an edit: a result then stands behind the call it ended."""

    @policy
    def summary(trajectory):
        if trajectory.messages[-1]["content"] == "out":
            yield Edit(2, 5, ({"role": "user", "content": "what was done"},))

    session = Session(summary)
    unanswered = {**call(1), "content": "I look."}
    messages = [SYSTEM, TASK, call(1), result(1), unanswered, call(1), result(1, "out")]
    first = session.begin(messages)
    first.finish("done")
    assert contents(first.request["messages"])[2] == "what was done"
    again = session.begin([*messages[:5], messages[6], {"role": "user", "content": "Go on."}])
    assert [m["role"] for m in again.request["messages"]][2:] == [
        "assistant", "tool", "assistant", "tool", "user",
    ]  # fmt: skip
    assert session.begin(messages[:5]).request["messages"][2]["content"] == "what was done"
