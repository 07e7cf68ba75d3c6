"""Whatever policies ask and harnesses do: views are stable, receipts add up, nothing undeclared."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent import Edit, Mode, Reason, Session, policy
from leyline_agent.message import copy, digest, view_digest
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

pytestmark = pytest.mark.filterwarnings("ignore::leyline_agent.LeylineWarning")

TASK = [{"role": "system", "content": "s"}, {"role": "user", "content": "task"}]


def replier():
    count = iter(range(10_000))
    return DeterministicModel(
        lambda messages: tool_call("f", id=f"c{next(count)}", content="I call."), repeat=True
    )


def policy_of(draw):
    """A policy whose edits are drawn, legal or not, anew in every turn."""

    @policy
    def drawn(trajectory):
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(trajectory.messages)))
            end = min(start + draw(st.integers(0, 3)), len(trajectory.messages))
            text = draw(st.sampled_from(["stub", "note", ""]))
            message = {"role": "user", "content": text}
            if end - start == 1:
                message = {**trajectory.messages[start], "content": text}
            yield Edit(start, end, (message,) if text else (), draw(st.sampled_from(Mode)))

    return drawn


def answer(session, messages):
    """One turn; the harness's list afterwards."""
    turn = session.begin(messages)
    sent = turn.request["messages"]
    assert turn.commit.view_digest == view_digest(map(digest, sent))
    receipt = turn.finish(session.adapter.complete(turn.request))
    reply = copy(session.history[-1])
    assert session.view == [*sent, reply]
    assert receipt.reason in (Reason.ASKED, Reason.RETRY)
    call_id = reply["tool_calls"][0]["id"]
    return [*messages, reply, {"role": "tool", "tool_call_id": call_id, "content": "out " * 9}]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_policy_on_a_growing_conversation(data):
    session = Session(policy_of(data.draw), MockAdapter(replier()))
    messages = TASK
    for _ in range(5):
        held = session.view
        turn_base = session.version
        messages = answer(session, messages)
        receipt = session.receipts[-1]
        assert receipt.base_version == turn_base
        assert session.history == messages[:-1]
        touched = min((e.messages[0] for e in session.adapter.commits[-1].edits), default=len(held))
        assert session.view[: min(touched, len(held))] == held[: min(touched, len(held))]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_rewinding_and_rewriting(data):
    session = Session(policy_of(data.draw), MockAdapter(replier()))
    messages, views = TASK, {0: []}
    for turn in range(6):
        messages = answer(session, messages)
        views[session.version] = session.view
        action = data.draw(st.sampled_from(["go on", "rewind", "rewrite", "fail"]))
        if action == "rewind":
            messages = messages[: data.draw(st.integers(1, len(messages)))]
        elif action == "rewrite":
            place = data.draw(st.integers(1, len(messages) - 1))
            messages = [*messages[:place], {"role": "user", "content": f"new {turn}"}]
        elif action == "fail":
            session.begin(messages).fail("down")
        begun = session.begin(messages)
        base, kept = begun.commit.base_version, begun.commit.base_len
        assert (base > 0) == (session.shared(messages) > 0)
        assert list(begun.trajectory.messages[:kept]) == views[base][:kept]
        assert begun.trajectory.original.messages == tuple(messages)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), min_size=8, max_size=8))
def test_feeding_the_view_back_equals_feeding_the_history(stubs):

    @policy
    def fixed(trajectory):
        for found in trajectory.tool_results[:-1]:
            number = int(found.message["tool_call_id"][1:]) % 8
            if stubs[number] and found.content != "stub":
                yield found.replace("stub")

    whole, viewed = (Session(fixed, MockAdapter(replier()), id="s") for _ in range(2))
    messages = view = TASK
    for _ in range(6):
        messages = answer(whole, messages)
        answered = answer(viewed, view)
        view = [*viewed.view, answered[-1]]
    assert whole.view == viewed.view
    assert whole.history == viewed.history
    assert whole.receipts == viewed.receipts
