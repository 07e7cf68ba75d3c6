"""Whatever the model recalls, policies edit and harnesses do: pairs, history, view, journal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recalling import TASK, TOOLS, Harness, ids_in, output, recalls, runs

from leyline_agent import Edit, Mode, Session, policy
from leyline_agent.edit import loose_ends
from leyline_agent.message import digest, view_digest
from leyline_agent.recall.options import Recall
from leyline_agent.testing import DeterministicModel, MockAdapter

pytestmark = pytest.mark.filterwarnings("ignore::leyline_agent.LeylineWarning")


def model_of(draw):
    """A model that runs something, recalls something, or both."""

    def reply(messages):
        ids = [*ids_in(messages), "r000000"]
        kind = draw(st.sampled_from(["run", "run", "recall", "both", "end"]))
        if kind == "end":
            return {"role": "assistant", "content": "That is it."}
        wanted = draw(st.lists(st.sampled_from(ids), min_size=1, max_size=2))
        if kind == "recall":
            return recalls(*wanted)(messages)
        return recalls(*(wanted if kind == "both" else ()), beside=["ls"])(messages)

    return MockAdapter(DeterministicModel(reply, repeat=True))


def policy_of(draw):
    """A policy that cuts, drops and adds what is drawn."""

    @policy
    def drawn(trajectory):
        for result in trajectory.tool_results:
            kind = draw(st.sampled_from(["", "", "stub", "cut", "drop", "forget", "redact"]))
            if kind == "stub":
                yield result.replace("stub")
            elif kind == "cut":
                yield result.replace(result.content[:120], mode=Mode.AMORTIZE)
            elif kind == "forget":
                yield result.replace("corrected", mode=Mode.FORGET)
            elif kind == "redact":
                yield result.replace("gone", redact=True)
            elif kind == "drop" and result.call is not None:
                yield trajectory.drop_call(result.call)
        if draw(st.booleans()) and not trajectory.pending:
            end = len(trajectory.messages)
            yield Edit(end, end, ({"role": "user", "content": "a note"},))

    return drawn


def same(history, messages):
    """Whether a history is these messages, tombstones standing for what was redacted."""
    return len(history) == len(messages) and all(
        known == message or known.get("leyline_redacted") == digest(message)
        for known, message in zip(history, messages, strict=True)
    )


def checked(agent):
    """A turn, and what holds of every call in it."""
    session, history = agent.session, agent.messages
    turn = session.begin(history, tools=TOOLS)
    for _ in range(8):
        sent = turn.request["messages"]
        assert turn.commit.view_digest == view_digest(map(digest, sent))
        assert not loose_ends(sent) - loose_ends(history)
        assert turn.request["tools"][-1]["function"]["name"] == "leyline_recall"
        response = agent.adapter.complete(turn.request)
        if not turn.advance(response):
            break
        assert same(session.history, history)
        assert turn.request["messages"][: len(sent)] == sent
    turn.finish(response)
    reply = turn.delivered(response)["choices"][0]["message"]
    assert same(session.history, [*history, reply])
    assert session.view[: len(sent)] == sent
    agent.messages = [*history, reply]
    for call in reply.get("tool_calls") or ():
        assert call["function"]["name"] == "bash"
        answered = {"role": "tool", "tool_call_id": call["id"]}
        agent.messages.append({**answered, "content": output(next(agent.outputs) % 3)})
    if not reply.get("tool_calls"):
        agent.messages.append({"role": "user", "content": "Go on."})


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_any_recalls_edits_and_forks(tmp_path_factory, data):
    journal = tmp_path_factory.mktemp("journals") / "one.jsonl"
    bound = Recall(max_per_turn=data.draw(st.integers(1, 3)), max_bytes=2500, max_chars=500)
    agent = Harness(
        adapter=model_of(data.draw), policies=policy_of(data.draw), journal=journal, recall=bound
    )
    for number in range(5):
        checked(agent)
        action = data.draw(st.sampled_from(["on", "on", "fork", "rewrite", "resume", "quiet"]))
        if action == "fork":
            agent.messages = agent.messages[: data.draw(st.integers(2, len(agent.messages)))]
        elif action == "rewrite":
            place = data.draw(st.integers(2, len(agent.messages)))
            agent.messages = [*agent.messages[:place], {"role": "user", "content": f"new {number}"}]
        elif action == "resume":
            before = agent.session
            agent.session = Session.resume(
                journal, policy_of(data.draw), agent.adapter, recall=bound
            )
            assert agent.session.view == before.view
            assert agent.session.history == before.history
            assert agent.session.edits == before.edits
            assert agent.session.stats().recalls == before.stats().recalls
            assert agent.session.stats().turns == before.stats().turns


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_without_news_the_view_is_what_it_was(data):
    agent = Harness(adapter=model_of(data.draw), policies="truncate_older_than:n=1,max_chars=90")
    for _ in range(5):
        checked(agent)
    first = agent.session.begin(agent.messages, tools=TOOLS)
    sent = first.request["messages"]
    first.fail("down")
    again = agent.session.begin(agent.messages, tools=TOOLS)
    assert again.request["messages"] == sent
    again.finish(runs())
    last = agent.session.begin([*agent.messages, agent.session.history[-1]], tools=TOOLS)
    assert last.edits == ()
    assert last.request["messages"][: len(sent)] == sent


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_feeding_the_view_back_equals_feeding_the_history(data):
    choices = data.draw(st.lists(st.integers(0, 3), min_size=6, max_size=6))

    def model():
        numbers = iter(choices * 9)

        def reply(messages):
            ids, number = ids_in(messages), next(numbers)
            if ids and number > 1:
                beside = ["ls"] if number == 3 else []
                made = recalls(ids[0], beside=beside)(messages)
            else:
                made = recalls(beside=["ls"])(messages)
            for place, call in enumerate(made["tool_calls"]):
                call["id"] = f"c{len(messages)}_{place}"
            return made

        return MockAdapter(DeterministicModel(reply, repeat=True))

    whole = Harness(adapter=model(), policies="keep_last:n=1", id="s")
    viewed = Harness(adapter=model(), policies="keep_last:n=1", id="s")
    for _ in range(5):
        whole.turn()
        num = len(viewed.turn().get("tool_calls") or ())
        new = viewed.messages[len(viewed.messages) - num :]
        assert viewed.session.view == whole.session.view
        assert viewed.session.history == whole.session.history
        viewed.messages = [*viewed.session.view, *new]
    assert TASK == viewed.session.history[:2]
