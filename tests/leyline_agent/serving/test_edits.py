"""Edits ahead of the next turn, directives in token space, and forgetting afterwards."""

import pytest
from chat_texts import lines, user
from engine_cases import assert_close

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.edit import Edit
from leyline_agent.errors import (
    InvalidRequest,
    InvalidSpan,
    OverlappingSpans,
    StaleSession,
    UnknownSession,
)
from leyline_agent.receipt import Reason
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.edits import apply_directives, forget
from leyline_agent.serving.engine import Engine, Prompt
from leyline_agent.serving.wire import DirectivesRequest, WireDirective


@pytest.fixture
def plain(tiny_model):
    """Logits behind tokens, prefilled from nothing."""
    return lambda tokens: Engine.of(tiny_model).start(Prompt(list(tokens))).logits


@pytest.fixture
def talked(conversation):
    """A conversation of three turns with long messages at 2 and 4."""
    conversation.turn(user(lines(8)), reply="one")
    conversation.turn(user(lines(8, 1)), reply="two")
    return conversation


def test_an_edit_ahead_is_done_when_the_next_turn_comes(talked, stub, check_pool):
    ahead = talked.edit_ahead(stub(2, talked.view, policy="p"))
    assert [(e.id, e.policy, e.mode_used) for e in ahead.edits] == [("3.0", "p", Mode.AMORTIZE)]
    assert ahead.appended == 0
    assert ahead.reused_spliced > 50
    receipt, _ = talked.turn(user("next"))
    assert (receipt.reason, receipt.edits) == (Reason.ASKED, ())
    assert receipt.previous == ahead.prompt
    assert receipt.compute == receipt.appended < 40
    check_pool(talked.service)


@pytest.mark.parametrize("mode", Mode)
def test_edited_ahead_or_with_the_turn_gives_the_same_logits(tiny_model, talk, stub, mode):
    """AMORTIZE and FORGET; REPAIR counts new text towards its tail, so it may repair less."""
    logits = []
    for ahead in (True, False):
        one = talk(ChatService(Engine.of(tiny_model), "tiny", tiny_model.tokenizer))
        one.turn(user(lines(20)), reply="one")
        one.turn(user(lines(20, 1)), reply="two")
        cut = stub(2, one.view, mode=mode)
        if ahead:
            assert one.edit_ahead(cut).edits[0].mode_used is mode
            logits.append(one.turn(user(lines(8, 2)))[1])
        else:
            logits.append(one.turn(user(lines(8, 2)), edits=[cut])[1])
    limit = 1e-4 if mode is not Mode.REPAIR else 0.5
    assert (logits[0] - logits[1]).abs().max() < limit * logits[1].abs().max()


def test_forgetting_ahead_equals_an_honest_prefill(talked, stub, plain):
    talked.edit_ahead(stub(2, talked.view, mode=Mode.FORGET))
    _, logits = talked.turn(user("next"))
    prompt = talked.sequence.tokens[: talked.held.newest.prompt_len]
    assert_close(logits, plain(prompt))


def test_an_edit_ahead_is_a_retry_the_second_time(talked, stub, check_pool):
    cut = stub(2, talked.view)
    before = (talked.view, talked.version)
    first = talked.edit_ahead(cut)
    talked.took(*before)
    assert talked.edit_ahead(cut) == first
    assert len(talked.held.versions) == 3
    check_pool(talked.service)


def test_the_tools_of_the_version_are_taken_when_none_are_given(conversation, stub):
    declared = {"type": "function", "function": {"name": "read", "parameters": {}}}
    conversation.turn(user(lines(8)), tools=[declared])
    receipt = conversation.edit_ahead(stub(2, conversation.view))
    assert [e.reason for e in receipt.edits] == [Reason.COST_GATE]
    receipt, _ = conversation.turn(user("next"), tools=[declared])
    assert receipt.edits == ()
    assert receipt.compute == receipt.appended


def test_editing_ahead_of_nothing(talked, stub, talk):
    unknown = talk(talked.service, "nobody", view=talked.view)
    with pytest.raises(UnknownSession, match="session 'nobody' is not held here"):
        unknown.edit_ahead(stub(2, talked.view))
    talked.version = 7
    with pytest.raises(UnknownSession, match="version 7 of session 's' is not held here"):
        talked.edit_ahead(stub(2, talked.view))


def test_editing_ahead_of_an_evicted_version(talked, stub):
    engine = talked.service.engine
    engine.reclaim(engine.pool.num_slots)
    with pytest.raises(UnknownSession, match="version 2 of session 's' was evicted"):
        talked.edit_ahead(stub(2, talked.view))


def test_a_digest_of_other_messages(talked, stub):
    with pytest.raises(InvalidRequest, match="view_digest does not match"):
        talked.edit_ahead(stub(2, talked.view), view_digest="0" * 32)


def directives(base, *items, version=None):
    wire = [
        WireDirective(start=d.start, end=d.end, replacement=list(d.replacement), mode=d.mode)
        for d in items
    ]
    return DirectivesRequest(base_version=base, version=version, directives=wire)


CUTS = (
    Directive(90, 120, (), Mode.FORGET),
    Directive(30, 60, (5, 6), Mode.AMORTIZE),
    Directive(150, 160, (7,), Mode.AMORTIZE),
)


def test_directives_are_one_commit_in_original_coordinates(talked, check_pool):
    before = list(talked.sequence.tokens)
    receipt = apply_directives(talked.service, "s", directives(2, *CUTS))
    assert [(e.start, e.end, e.mode_used, e.reason) for e in receipt.edits] == [
        (30, 60, Mode.AMORTIZE, Reason.ASKED),
        (90, 120, Mode.FORGET, Reason.ASKED),
        (150, 160, Mode.FORGET, Reason.BEHIND_FORGET),
    ]
    assert (receipt.base_version, receipt.version) == (2, 3)
    assert talked.sequence.tokens == apply(before, CUTS)
    assert (receipt.previous, receipt.appended) == (len(before), 0)
    check_pool(talked.service)


def test_directives_are_all_taken_or_none(talked, check_pool):
    before = list(talked.sequence.tokens)
    for wrong, error in (
        (Directive(0, len(before) + 1), InvalidSpan),
        (Directive(40, 50), OverlappingSpans),
    ):
        with pytest.raises(error):
            apply_directives(talked.service, "s", directives(2, CUTS[1], wrong))
    with pytest.raises(InvalidRequest, match="token id 99999 is outside"):
        apply_directives(talked.service, "s", directives(2, Directive(3, 4, (99999,))))
    with pytest.raises(InvalidRequest, match="at least one token"):
        apply_directives(talked.service, "s", directives(2, Directive(0, len(before))))
    assert (talked.held.newest.number, talked.sequence.tokens) == (2, before)
    check_pool(talked.service)


def test_directives_on_a_version_that_is_not_the_newest(talked):
    with pytest.raises(StaleSession, match="session 's' is at version 2, not 1"):
        apply_directives(talked.service, "s", directives(1, CUTS[0]))
    with pytest.raises(UnknownSession, match="'nobody' is not held here"):
        apply_directives(talked.service, "nobody", directives(1, CUTS[0]))


def test_directives_act_once(talked, check_pool):
    request = directives(2, CUTS[1])
    first = apply_directives(talked.service, "s", request)
    assert apply_directives(talked.service, "s", request) == first
    with pytest.raises(StaleSession):
        apply_directives(talked.service, "s", directives(2, CUTS[0]))
    check_pool(talked.service)


def test_a_chat_turn_behind_directives_keeps_what_agrees(talked, plain, check_pool):
    """The messages no longer say what the tokens are: what differs is prefilled, and told."""
    apply_directives(talked.service, "s", directives(2, CUTS[1]))
    talked.version = 3
    receipt, logits = talked.turn(user("next"))
    assert [e.reason for e in receipt.edits] == [Reason.UNDECLARED]
    assert receipt.reused_exact >= 30
    assert receipt.reused_spliced == 0
    prompt = talked.sequence.tokens[: talked.held.newest.prompt_len]
    assert_close(logits, plain(prompt))
    check_pool(talked.service)


def test_messages_cannot_be_edited_ahead_behind_directives(talked, stub):
    apply_directives(talked.service, "s", directives(2, CUTS[1]))
    talked.version = 3
    with pytest.raises(InvalidRequest, match="has no messages to edit"):
        talked.edit_ahead(stub(2, talked.view))


def test_forgetting_an_edit_computes_what_absorbed_it(talked, stub, plain, check_pool):
    talked.turn(user("next"), edits=[stub(2, talked.view)])
    tokens = list(talked.sequence.tokens)
    assert talked.sequence.first_that_saw("3.0") is not None
    receipt = forget(talked.service, "s", "3.0")
    assert [(e.id, e.mode_used) for e in receipt.edits] == [("3.0", Mode.FORGET)]
    assert receipt.version == 3
    assert receipt.reused_spliced == 0
    assert talked.sequence.tokens == tokens
    assert talked.sequence.canonical_len == len(tokens)
    check_pool(talked.service)
    after, logits = talked.turn(user("on"))
    assert after.reason is Reason.ASKED
    assert after.reused_spliced == 0
    prompt = talked.sequence.tokens[: talked.held.newest.prompt_len]
    assert_close(logits, plain(prompt))


def test_forgetting_one_of_two_edits(talked, stub):
    talked.turn(user(lines(8, 2)), edits=[stub(2, talked.view)])
    talked.turn(user(lines(8, 3)), edits=[stub(4, talked.view)])
    first, second = (talked.sequence.first_that_saw(i) for i in ("3.0", "4.0"))
    assert first < second
    forget(talked.service, "s", "4.0")
    assert talked.sequence.first_that_saw("4.0") is None
    assert talked.sequence.first_that_saw("3.0") == first
    assert talked.sequence.canonical_len == first


def test_forgetting_gives_up_older_versions_that_absorbed_it(talked, stub, check_pool):
    """Else the next turn could branch off one of them."""
    talked.turn(user("a"), edits=[stub(2, talked.view)])
    talked.turn(user("b"))
    talked.turn(user("c"))
    forget(talked.service, "s", "3.0")
    assert [(v.number, v.evicted) for v in talked.held.versions.values()] == [
        (2, False),
        (3, True),
        (4, True),
        (5, False),
    ]
    check_pool(talked.service)


def test_forgetting_holds_although_the_newest_version_was_evicted(talked, stub):
    talked.turn(user("a"), edits=[stub(2, talked.view)])
    talked.turn(user("b"))
    talked.held.newest.evict()
    with pytest.raises(UnknownSession, match="version 4 of session 's' was evicted"):
        forget(talked.service, "s", "3.0")
    assert talked.held.versions[3].evicted


def test_forgetting_an_edit_that_never_was(talked):
    with pytest.raises(InvalidRequest, match="has no edit '9.9'"):
        forget(talked.service, "s", "9.9")


def test_forgetting_what_nothing_absorbed_changes_nothing(talked, stub, check_pool):
    talked.turn(user("a"), edits=[stub(2, talked.view, mode=Mode.FORGET)])
    before = list(talked.sequence.tokens)
    receipt = forget(talked.service, "s", "3.0")
    assert (receipt.reason, receipt.edits) == (Reason.NO_CHANGE, ())
    assert talked.sequence.tokens == before
    assert receipt.compute <= 1
    check_pool(talked.service)


def test_forgetting_in_a_session_nobody_holds(talked):
    with pytest.raises(UnknownSession):
        forget(talked.service, "nobody", "1.0")
    with pytest.raises(UnknownSession):
        forget(talked.service, "s", "1.0", tenant="another")


def test_edits_that_delete_everything_behind_the_task(talked, check_pool):
    view = talked.view
    receipt = talked.edit_ahead(Edit(2, len(view), (), Mode.AMORTIZE))
    assert receipt.prompt < 60
    receipt, _ = talked.turn(user("again"))
    assert receipt.reason is Reason.ASKED
    check_pool(talked.service)
