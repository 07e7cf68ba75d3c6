"""What a session learns from engines: receipts, figures, failures, edits done ahead."""

import logging

import pytest
from agent_loop import SYSTEM, TASK, Stub, call, contents, result, run

from leyline_agent import (
    AdapterError,
    Edit,
    EngineUnavailable,
    Mode,
    Reason,
    Session,
)
from leyline_agent.testing import DeterministicModel, MockAdapter


def test_receipts_of_a_plain_provider_come_from_its_usage():
    session = Session(Stub())
    messages = run(session, 2)
    receipt = session.begin(messages).finish(
        {
            "choices": [{"message": {"role": "assistant", "content": "ok"}}],
            "usage": {"prompt_tokens": 100, "prompt_tokens_details": {"cached_tokens": 60}},
        }
    )
    assert (receipt.prompt, receipt.reused_exact, receipt.prefilled) == (100, 60, 40)
    assert (receipt.base_version, receipt.version) == (2, 3)
    (told,) = receipt.edits
    assert (told.mode_asked, told.mode_used) == (Mode.REPAIR, Mode.FORGET)
    assert told.reason is Reason.ENGINE_CANNOT_SPLICE


@pytest.mark.parametrize("answer", [None, "text", {"choices": []}, {"usage": None}, object()])
def test_an_answer_without_figures_still_commits(answer):
    session = Session()
    receipt = session.begin([TASK]).finish(answer)
    assert receipt.reason is Reason.NO_RECEIPT
    assert session.version == 1


def test_an_unreadable_receipt_does_not_cost_the_reply(caplog):
    session = Session(adapter=MockAdapter())
    answer = {
        "choices": [{"message": {"role": "assistant", "content": "ok"}}],
        "leyline": {"prompt": 10},
        "usage": {"prompt_tokens": 10},
    }
    with caplog.at_level(logging.WARNING, "leyline"):
        receipt = session.begin([TASK]).finish(answer)
    assert "does not add up" in caplog.text
    assert receipt.prompt == 10
    assert session.history[-1]["content"] == "ok"


def test_an_engine_that_fails_leaves_the_session_as_it_was():
    adapter = MockAdapter(DeterministicModel("one", "two", "three"))
    session = Session(Stub(), adapter)
    turn = session.begin([TASK])
    turn.finish(adapter.complete(turn.request))
    adapter.fail(EngineUnavailable("down"))
    turn = session.begin([*session.history, TASK])
    with pytest.raises(EngineUnavailable):
        adapter.complete(turn.request)
    turn.fail("down")
    assert (session.version, len(session.history)) == (1, 2)


def test_edit_ahead_commits_before_the_next_request():
    adapter = MockAdapter()
    session = Session(Stub(n=1, mode=Mode.AMORTIZE), adapter)
    messages = [SYSTEM, TASK, call(2), result(2), call(4), result(4)]
    session.edit(Edit(3, 4, (result(2, "stub"),)))
    turn = session.begin(messages)
    turn.finish(adapter.complete(turn.request))
    messages.append(session.history[-1])
    session.edit(Edit(5, 6, (result(4, "short"),)))
    receipt = session.edit_ahead()
    assert (receipt.base_version, receipt.version, receipt.appended) == (1, 2, 0)
    assert contents(session.view)[3:6:2] == ["stub", "short"]
    assert session.edit_ahead() is None
    stats = session.stats()
    assert (stats.turns, stats.ahead, stats.edits) == (1, 1, 2)
    first, ahead = session.receipts
    assert stats.prompt == first.prompt + ahead.compute
    assert stats.prompt == stats.reused_exact + stats.reused_spliced + stats.compute
    commit = session.begin([*messages, TASK]).commit
    assert (commit.base_version, commit.edits) == (2, ())


def test_edit_ahead_needs_an_adapter_that_can():
    with pytest.raises(AdapterError, match="cannot edit ahead"):
        Session().edit_ahead()


def test_stats_and_repr():
    adapter = MockAdapter(DeterministicModel(*[call(n) for n in range(0, 6)]))
    session = Session(Stub(mode=Mode.AMORTIZE), adapter, id="s")
    messages = [SYSTEM, TASK]
    for number in range(4):
        turn = session.begin(messages)
        turn.finish(adapter.complete(turn.request))
        messages += [call(number), result(number)]
    stats = session.stats()
    assert (stats.turns, stats.edits, stats.failed, stats.skipped) == (4, 2, 0, 0)
    assert stats.prompt == stats.reused_exact + stats.reused_spliced + stats.compute
    assert stats.reused_spliced > 0
    assert 0 < stats.hit_rate < 1
    assert repr(session) == "Session('s', version=4)"
