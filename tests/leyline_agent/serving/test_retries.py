"""The same commit again is a retry; another commit under its number is refused."""

import pytest
from chat_texts import lines, user
from engine_cases import assert_close

from leyline_agent.errors import StaleSession
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Engine, Prompt


def test_a_retry_acts_once(conversation, stub, check_pool):
    conversation.turn(user(lines(10)), reply="ok")
    conversation.turn(user(lines(10, 1)), reply="ok")
    cut = stub(2, conversation.view)
    before, version, base_len = conversation.view, conversation.version, conversation.base_len
    first, logits = conversation.turn(user("next"), edits=[cut])
    held = len(conversation.held.versions)
    conversation.view, conversation.version, conversation.base_len = before, version, base_len
    again, same = conversation.turn(user("next"), edits=[cut])
    assert again.reason is Reason.RETRY
    assert again.compute == 1
    assert again.prompt == first.prompt
    assert_close(same, logits)
    assert len(conversation.held.versions) == held
    receipt, _ = conversation.turn(user("on"))
    assert receipt.reason is Reason.ASKED
    assert receipt.prefilled == receipt.appended
    check_pool(conversation.service)


@pytest.mark.parametrize("known", [{}, {"view_digest": ""}, {"view_digest": "0" * 32}])
def test_the_same_version_with_another_prompt_is_refused(conversation, check_pool, known):
    conversation.turn(user(lines(10)), reply="ok")
    before, base_len = conversation.view, conversation.base_len
    conversation.turn(user("next"), commit=known)
    held = conversation.sequence.tokens
    conversation.view, conversation.version, conversation.base_len = before, 1, base_len
    with pytest.raises(StaleSession, match="version 2 of session 's' was made by another commit"):
        conversation.turn(user("something else"))
    assert conversation.sequence.tokens == held
    check_pool(conversation.service)
    conversation.version = 2
    assert conversation.turn(user("on"))[0].reason is Reason.ASKED


def test_a_retry_without_a_digest_acts_once(conversation, stub, check_pool):
    for number in range(2):
        conversation.turn(user(lines(10, number)), reply="ok")
    cut = stub(2, conversation.view)
    before, version, base_len = conversation.view, conversation.version, conversation.base_len
    told = {"commit": {"view_digest": ""}}
    conversation.turn(user("next"), edits=[cut], **told)
    conversation.view, conversation.version, conversation.base_len = before, version, base_len
    again, _ = conversation.turn(user("next"), edits=[cut], **told)
    assert (again.reason, again.compute) == (Reason.RETRY, 1)
    check_pool(conversation.service)


def test_a_restarted_client_begins_its_session_anew(conversation, tiny_model, talk, check_pool):
    conversation.turn(user(lines(10)), reply="ok")
    conversation.turn(user("next"))
    restarted = talk(conversation.service)
    receipt, logits = restarted.turn(user("from the start"))
    assert receipt.reason is Reason.STALE_VERSION
    assert receipt.detail.endswith("was made by another commit; the session begins anew")
    prompt = restarted.sequence.tokens[: receipt.prompt]
    assert_close(logits, Engine.of(tiny_model).start(Prompt(prompt)).logits)
    assert restarted.turn(user("next"))[0].reason is Reason.ASKED
    assert list(restarted.held.versions) == [1, 2]
    check_pool(conversation.service)
