"""Recall in a session: the hidden exchange stands in the view and nowhere else."""

import pytest
from recalling import TASK, TOOLS, Harness, ids_in, output, recalls, runs

from leyline_agent import Edit, LeylineError, LeylineWarning, Mode, Policy, Session
from leyline_agent.message import digest, view_digest
from leyline_agent.recall.options import Recall
from leyline_agent.recall.tool import UNANSWERED


def is_recall(message):
    calls = message.get("tool_calls") or ()
    return [call["function"]["name"] for call in calls] == ["leyline_recall"]


def test_the_tool_is_declared_from_the_first_call_on_and_last():
    agent = Harness(runs(), runs(), "done")
    agent.turns(3)
    for request in agent.requests:
        assert request["tools"][:-1] == TOOLS
        assert request["tools"][-1]["function"]["name"] == "leyline_recall"
    assert agent.session.skipped == ()


def test_without_recall_nothing_is_declared_or_named():
    agent = Harness(runs(), runs(), "done", recall=False)
    agent.turns(3)
    assert all(request["tools"] is TOOLS for request in agent.requests)
    assert ids_in(agent.session.view) == []


def test_a_recall_is_answered_inside_and_hidden():
    agent = Harness(runs(), runs(), recalls(0), runs(), "done")
    agent.turns(4)
    asked = agent.requests[3]["messages"]
    call, shown = asked[-2:]
    assert is_recall(call)
    assert shown == {
        "role": "tool", "content": output(0), "tool_call_id": call["tool_calls"][0]["id"],
    }  # fmt: skip
    assert agent.session.history == agent.messages
    assert not any(map(is_recall, agent.session.history))
    assert [is_recall(m) for m in agent.session.view].count(True) == 1
    assert agent.session.stats().turns == 4
    assert agent.session.stats().hidden == 1
    assert agent.session.stats().recalls == 1
    assert agent.session.stats().repeated == 0
    assert len(agent.session.receipts) == 5


def test_the_exchange_stays_where_it_is():
    agent = Harness(*[runs()] * 3, recalls(0), *[runs()] * 5, policies="keep_last:n=2")
    agent.turns(4)
    view = agent.session.view
    place = next(i for i, m in enumerate(view) if is_recall(m))
    agent.turns(4)
    later = agent.session.view
    assert later[place] == view[place]
    assert later[place + 1]["tool_call_id"] == view[place + 1]["tool_call_id"]
    assert later[place + 2] == view[place + 2]


def test_the_engine_is_told_nothing_but_the_truth():
    """Every commit says where it goes on, and the simulated engine finds all of it held."""
    agent = Harness(runs(), runs(), recalls(0), runs(), "done")
    agent.turns(4)
    for commit, request in zip(agent.adapter.commits, agent.requests, strict=True):
        assert commit.view_digest == view_digest(map(digest, request["messages"]))
    *_, before, after, _ = agent.session.receipts
    assert after.base_version == before.version
    assert after.prefilled < before.prefilled + 250
    assert after.reused == before.prompt + before.completion


def test_the_usage_is_that_of_all_calls():
    agent = Harness(runs(), runs(), recalls(0), runs(), "done")
    agent.turns(3)
    hidden, last = agent.session.receipts[-2:]
    usage = agent.replies[-1]["usage"]
    assert usage["prompt_tokens"] == hidden.prompt + last.prompt
    assert usage["completion_tokens"] == hidden.completion + last.completion
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == hidden.reused + last.reused
    plain = agent.replies[0]["usage"]
    assert plain["prompt_tokens"] == agent.session.receipts[0].prompt


def test_a_recalled_output_is_edited_like_any_other():
    agent = Harness(runs(), runs(), recalls(0), runs(), runs(), recalls(0), "done")
    agent.turns(5)
    stubbed = [m for m in agent.session.view if m.get("tool_call_id", "").startswith("r")]
    first, second = agent.session.view[3], stubbed[0]
    assert first["content"] == second["content"]
    assert ids_in([first]) == ids_in([second])
    assert stubbed[1]["content"] == output(0)


def test_a_recall_that_recurs_is_told(tmp_path):
    agent = Harness(
        runs(), runs(), recalls(0), runs(), runs(), recalls(0), "done", journal=tmp_path / "j"
    )
    agent.turns(4)
    with pytest.warns(LeylineWarning, match="keep_last had cut: it cuts too much"):
        agent.turn()
    assert agent.session.stats().repeated == 1
    assert agent.session.skipped[-1].kind == "RecalledAgain"
    assert '"again":true' in (tmp_path / "j").read_text()


def test_calls_beside_a_recall_go_to_the_harness():
    agent = Harness(runs(), runs(), recalls(0, beside=["make"]), runs(), "done")
    agent.turns(2)
    reply = agent.turn()
    assert [call["function"]["name"] for call in reply["tool_calls"]] == ["bash"]
    assert agent.session.history == agent.messages[:-1]
    assert agent.session.stats().hidden == 0
    agent.turn()
    *_, whole, shown, result = agent.requests[-1]["messages"]
    assert [call["function"]["name"] for call in whole["tool_calls"]] == ["leyline_recall", "bash"]
    assert shown["tool_call_id"] == whole["tool_calls"][0]["id"]
    assert ids_in([shown]) == ids_in([agent.session.view[3]])
    assert result["tool_call_id"] == whole["tool_calls"][1]["id"]
    assert agent.session.history == agent.messages[:-1]


def test_recalls_are_bounded():
    script = [runs(), runs(), *[recalls(0)] * 5, "done"]
    agent = Harness(*script, recall=Recall(max_per_turn=2))
    agent.turns(2)
    with pytest.warns(LeylineWarning, match="cuts too much"):
        reply = agent.turn()
    assert reply == {"role": "assistant", "content": f"Let me see that again.\n{UNANSWERED}"}
    assert agent.replies[-1]["choices"][0]["finish_reason"] == "stop"
    answers = [m["content"] for m in agent.session.view if m.get("tool_call_id", "")[:1] == "r"]
    assert answers[0] == answers[1] == output(0)
    assert "2 recalls are allowed" in answers[2]
    assert "no recall is answered any more" in answers[3]
    assert len(answers) == 4
    assert agent.session.skipped[-1].kind == "RecallBound"
    assert agent.session.history[-1] == reply
    assert agent.turn()["content"] == "done"


def test_a_model_that_gives_up_recalling_at_the_last_word_goes_on():
    agent = Harness(runs(), runs(), *[recalls("r0")] * 3, runs(), recall=Recall(max_per_turn=1))
    agent.turns(2)
    assert agent.turn()["tool_calls"]
    assert "RecallBound" not in [note.kind for note in agent.session.skipped]


def test_several_at_once_are_counted_each():
    agent = Harness(runs(), runs(), runs(), recalls(0, 1), "done", recall=Recall(max_per_turn=1))
    agent.turns(4)
    shown, refused = (m["content"] for m in agent.requests[-1]["messages"][-2:])
    assert shown == output(0)
    assert "1 recalls are allowed" in refused


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (recalls("r000000"), "no output 'r000000'"),
        (recalls("", start=3), "cannot be read"),
    ],
)
def test_what_cannot_be_shown_is_said(reply, says):
    agent = Harness(runs(), runs(), reply, "done")
    agent.turns(3)
    assert says in agent.requests[-1]["messages"][-1]["content"]
    assert agent.session.stats().recalls == 0


def test_what_was_evicted_is_said():
    agent = Harness(*[runs()] * 4, recalls(0), "done", recall=Recall(max_bytes=1500))
    agent.turns(5)
    assert "no longer kept" in agent.requests[-1]["messages"][-1]["content"]
    assert any(note.kind == "Evicted" for note in agent.session.skipped)


def test_what_is_larger_than_the_archive_has_no_line():
    agent = Harness(*[runs()] * 4, recall=Recall(max_bytes=100))
    agent.turns(4)
    assert agent.session.stats().edits == 2
    assert ids_in(agent.session.view) == []
    (note,) = agent.session.skipped
    assert note.kind == "TooLarge"


def test_off_without_tools():
    agent = Harness("hi", "done", tools=None)
    agent.turns(1)
    agent.tools = TOOLS
    agent.messages.append({"role": "user", "content": "more"})
    agent.turns(1)
    assert "tools" not in agent.requests[0]
    assert agent.requests[1]["tools"] is TOOLS
    (note,) = agent.session.skipped
    assert (note.policy, note.kind) == ("recall", "NoTools")


def test_off_where_the_name_is_taken():
    own = {"type": "function", "function": {"name": "leyline_recall", "parameters": {}}}
    agent = Harness(runs(), runs(), "done", tools=[own])
    agent.turns(3)
    assert agent.requests[-1]["tools"] == [own]
    assert ids_in(agent.session.view) == []
    (note,) = agent.session.skipped
    assert note.kind == "NameClash"


def test_a_first_call_that_failed_decides_nothing():
    session = Session(recall=True)
    session.begin(TASK).fail("down")
    assert len(session.begin(TASK, tools=TOOLS).request["tools"]) == 2


def test_a_failed_call_behind_a_recall_is_made_again_with_it():
    agent = Harness(runs(), runs(), recalls(0), runs(), "done")
    agent.turns(2)
    turn = agent.session.begin(agent.messages, tools=TOOLS)
    assert turn.advance(agent.adapter.complete(turn.request))
    turn.fail("down")
    again = agent.session.begin(agent.messages, tools=TOOLS)
    assert again.commit.base_version == turn.commit.base_version
    assert is_recall(again.request["messages"][-2])
    again.finish(agent.adapter.complete(again.request))
    assert agent.session.history[:-1] == agent.messages


def test_a_closed_turn_does_not_go_on():
    agent = Harness(runs())
    turn = agent.session.begin(agent.messages, tools=TOOLS)
    turn.finish("done")
    with pytest.raises(LeylineError, match="closed already"):
        turn.advance("done")


def test_policies_see_their_stubs_as_they_wrote_them():
    seen = []

    class Looking(Policy):
        def edits(self, trajectory):
            seen.append([result.content for result in trajectory.tool_results])
            for result in trajectory.tool_results[:-1]:
                if result.content != "stub":
                    yield result.replace("stub")

    agent = Harness(*[runs()] * 5, policies=Looking())
    agent.turns(5)
    assert seen[-1] == ["stub", "stub", output(2), output(3)]
    assert len(ids_in(agent.session.view)) == 3
    assert agent.session.stats().edits == 3


def test_a_policy_that_measures_its_stubs_does_not_edit_them_again():
    agent = Harness(*[runs()] * 6, policies="truncate_older_than:n=1,max_chars=100")
    agent.turns(6)
    assert agent.session.stats().edits == 4
    assert agent.session.skipped == ()


@pytest.mark.parametrize("redact", [False, True])
def test_what_is_to_be_forgotten_is_not_kept(redact):
    class Forget(Policy):
        mode: Mode = Mode.FORGET

        def edits(self, trajectory):
            for result in trajectory.tool_results[:-1]:
                if len(result.content) > 100:
                    yield result.replace("corrected", redact=redact)

    agent = Harness(*[runs()] * 4, policies=Forget())
    agent.turns(4)
    assert ids_in(agent.session.view) == []


def test_a_redaction_deletes_what_was_kept_and_what_was_shown(tmp_path):
    journal, path = tmp_path / "j", tmp_path / "archive.db"
    ids = []
    again = [lambda messages: recalls(*ids)(messages), "done"]
    script = [runs(), runs(), recalls(0), runs(), runs(), *again]
    agent = Harness(*script, journal=journal, recall=path)
    agent.turns(2)
    secret = b"line of output 0"
    assert not path.exists()
    agent.turn()
    assert secret in path.read_bytes()
    assert secret in journal.read_bytes()
    stub = agent.session.view[3]
    ids += ids_in([stub])
    agent.session.edit(Edit(3, 4, ({**stub, "content": "gone"},), redact=True))
    agent.turn()
    assert secret not in path.read_bytes()
    assert secret not in journal.read_bytes()
    assert secret.decode() not in str(agent.session.view)
    agent.turn()
    assert "removed for good" in agent.requests[-1]["messages"][-1]["content"]
    resumed = Session.resume(journal, "keep_last:n=1", agent.adapter, recall=path)
    assert resumed.view == agent.session.view


def test_a_fork_before_the_exchange_is_without_it_and_one_behind_has_it():
    agent = Harness(runs(), runs(), recalls(0), runs(), runs(), runs(), "done")
    agent.turns(3)
    before, behind = agent.messages[:4], agent.messages[:6]
    assert agent.session.shared(behind) == 6
    forked = agent.session.begin([*behind, {"role": "user", "content": "go on"}], tools=TOOLS)
    assert any(map(is_recall, forked.request["messages"]))
    forked = agent.session.begin([*before, {"role": "user", "content": "wait"}], tools=TOOLS)
    assert not any(map(is_recall, forked.request["messages"]))


def test_the_view_may_come_back():
    agent = Harness(runs(), runs(), recalls(0), runs(), "done")
    agent.turns(3)
    result = agent.messages[-1]
    viewed = [*agent.session.view, result]
    assert len(viewed) == len(agent.messages) + 2
    turn = agent.session.begin(viewed, tools=TOOLS)
    assert list(turn.trajectory.original.messages) == agent.messages
    assert turn.commit.base_version == agent.session.version


def test_a_long_output_is_shown_in_parts():
    agent = Harness(
        runs(), runs(), recalls(0), recalls(0, start=400), "done", recall=Recall(max_chars=400)
    )
    agent.turns(3)
    first, _, second = agent.requests[-1]["messages"][-3:]
    whole = output(0)
    assert first["content"].startswith(whole[:400])
    assert "start=400" in first["content"]
    assert second["content"].startswith(whole[400:800])
    assert agent.session.stats().repeated == 0


def test_pins_hold_behind_an_exchange():
    agent = Harness(
        runs(), runs(), recalls(0), *[runs()] * 4, pinned=lambda m: "result 3:" in str(m["content"])
    )
    agent.turns(6)
    assert output(3) in [m["content"] for m in agent.session.view]


def test_nothing_comes_between_a_running_call_and_its_result():
    """A harness that asks while its tools run, and then sends their results."""
    agent = Harness(runs(), runs(), runs(), recalls(0), "done")
    agent.turns(3)
    results = agent.messages.pop()
    reply = agent.turn()
    assert "tool_calls" not in reply
    assert agent.session.skipped[-1].kind == "RecallOutOfPlace"
    agent.messages = [*agent.messages[:-1], results]
    agent.turn()
    assert agent.requests[-1]["messages"][-2]["tool_calls"][0]["id"] == results["tool_call_id"]


def test_a_caller_that_does_not_go_on_gets_no_recall():
    agent = Harness(runs(), runs(), recalls(0))
    agent.turns(2)
    turn = agent.session.begin(agent.messages, tools=TOOLS)
    response = agent.adapter.complete(turn.request)
    turn.finish(response)
    assert "tool_calls" not in turn.delivered(response)["choices"][0]["message"]
    assert agent.session.skipped[-1].kind == "RecallOutOfPlace"
    assert agent.session.view == [*turn.request["messages"], agent.session.history[-1]]
