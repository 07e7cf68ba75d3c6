import pytest

from leyline_agent import (
    AdapterError,
    CallingAdapter,
    Edit,
    EngineUnavailable,
    Mode,
    Reason,
    Session,
)
from leyline_agent.adapter import Capabilities
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.testing.model import tokens


def user(text):
    return {"role": "user", "content": text}


def chat(session, *texts):
    """One answered turn a text; the whole conversation so far and the last receipt."""
    messages = session.history
    for text in texts:
        turn = session.begin([*messages, user(text)])
        receipt = turn.finish(session.adapter.complete(turn.request))
        messages = session.history
    return messages, receipt


def edited(mode, **capabilities):
    """A session of two answered turns with the first reply cut short in the third."""
    able = MockAdapter().capabilities.model_copy(update=capabilities)
    session = Session(
        adapter=MockAdapter(DeterministicModel("a" * 400, repeat=True), capabilities=able)
    )
    chat(session, "task", "more")
    session.edit(Edit(1, 2, ({"role": "assistant", "content": "short"},), mode=mode))
    return chat(session, "go on")[1]


def test_an_append_only_turn_reuses_everything_exactly():
    session = Session(adapter=MockAdapter(DeterministicModel("one", "two")))
    messages, receipt = chat(session, "task", "more")
    assert receipt.reused_exact == receipt.previous == sum(map(tokens, messages[:2]))
    assert receipt.prefilled == receipt.appended == tokens(messages[2])


def test_amortize_splices_what_follows_the_edit():
    receipt = edited(Mode.AMORTIZE)
    assert (receipt.reused_exact, receipt.recomputed) == (5, 0)
    assert receipt.reused_spliced == 5 + 104
    assert (receipt.removed, receipt.inserted) == (104, 6)


def test_repair_computes_the_boundary_again():
    receipt = edited(Mode.REPAIR)
    assert (receipt.recomputed, receipt.reused_spliced) == (16, 5 + 104 - 16)
    assert edited(Mode.REPAIR, repair="none").recomputed == 0


def test_forget_prefills_what_follows_the_edit():
    receipt = edited(Mode.FORGET)
    assert (receipt.reused_exact, receipt.reused_spliced) == (5, 0)
    assert receipt.edits[0].suffix == 0


def test_a_mode_the_engine_lacks_is_strengthened():
    assert edited(Mode.AMORTIZE, modes=frozenset({Mode.FORGET})).reused_spliced == 0


def test_spliced_tokens_stay_spliced_in_later_turns():
    session = Session(adapter=MockAdapter(DeterministicModel("a" * 400, repeat=True)))
    chat(session, "task", "more")
    session.edit(Edit(1, 2, (), mode=Mode.AMORTIZE))
    _, first = chat(session, "go on")
    _, second = chat(session, "go on")
    assert second.reused_spliced == first.reused_spliced > 0
    assert second.edits == ()


def test_behind_a_forget_everything_is_forgotten():
    session = Session(adapter=MockAdapter(DeterministicModel("a" * 400, repeat=True)))
    chat(session, "task", "more", "more")
    session.edit(Edit(1, 2, (), mode=Mode.FORGET))
    session.edit(Edit(3, 4, (), mode=Mode.AMORTIZE))
    _, receipt = chat(session, "go on")
    assert [e.reason for e in receipt.edits] == [Reason.ASKED, Reason.BEHIND_FORGET]
    assert receipt.reused_spliced == 0


def test_an_unknown_base_is_an_ordinary_prefill():
    session = Session(adapter=MockAdapter())
    session.begin([user("task")]).finish("the engine never saw this")
    _, receipt = chat(session, "more")
    assert receipt.reason is Reason.UNKNOWN_SESSION
    assert receipt.prefilled == receipt.prompt


def test_an_undeclared_change_is_prefilled():
    adapter = MockAdapter()
    session = Session(adapter=adapter)
    chat(session, "task", "more")
    turn = session.begin([*session.history, user("x")])
    turn.request["messages"][1] = user("something else")
    receipt = turn.finish(adapter.complete(turn.request))
    assert receipt.reused_exact == tokens(user("task"))


def test_failures_before_and_after_the_engine_did_its_work():
    adapter = MockAdapter(DeterministicModel("one", "two", "three"))
    session = Session(adapter=adapter)
    chat(session, "task")
    asked = [*session.history, user("more")]
    for answered in (False, True):
        adapter.fail(EngineUnavailable("down"), answered=answered)
        turn = session.begin(asked)
        with pytest.raises(EngineUnavailable):
            adapter.complete(turn.request)
        turn.fail("down")
    turn = session.begin(asked)
    receipt = turn.finish(adapter.complete(turn.request))
    assert (receipt.reason, receipt.version) == (Reason.RETRY, 2)
    assert session.history[-1]["content"] == "two"
    assert len(adapter.model.requests) == 2


def test_without_receipts_the_usage_still_tells():
    adapter = MockAdapter(capabilities=Capabilities(modes=frozenset({Mode.FORGET})))
    session = Session(adapter=adapter)
    _, receipt = chat(session, "task", "more")
    assert receipt.reused_exact > 0
    assert receipt.repair == "none"


def test_streams_carry_the_receipt_in_their_last_chunk():
    adapter = MockAdapter()
    turn = Session(adapter=adapter).begin([user("task")])
    *_, last = adapter.stream(turn.request)
    assert last.leyline.prompt == tokens(user("task"))
    assert last.choices == []


async def test_asynchronous_calls():
    adapter = MockAdapter()
    turn = Session(adapter=adapter).begin([user("task")])
    made = await adapter.acomplete(turn.request)
    assert made.choices[0].message.content == "ok"
    assert [c async for c in adapter.astream(turn.request)]


def test_a_request_without_a_commit_is_an_ordinary_one():
    assert "leyline" not in MockAdapter().complete({"messages": [user("hi")]})


def test_other_extra_fields_stay():
    adapter = MockAdapter()
    turn = Session(adapter=adapter).begin([user("hi")], extra_body={"top_k": 1})
    assert turn.request["extra_body"]["top_k"] == 1
    assert adapter.commits == [turn.commit]


def test_what_it_cannot_do():
    adapter = MockAdapter(capabilities=Capabilities())
    assert isinstance(adapter, CallingAdapter)
    turn = Session(adapter=adapter).begin([user("hi")])
    with pytest.raises(AdapterError, match="cannot edit ahead"):
        adapter.edit_ahead(turn.request, turn.commit)
    with pytest.raises(AdapterError, match="knows no tokens"):
        adapter.apply("s", 1, [])
