"""Redaction: what was computed while a text was visible is gone, and what is left is told."""

import numpy as np
import pytest
import torch
from chat_texts import lines, user

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.quoting import quoting_messages
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Engine, Prompt

SECRET = "the key is sk-live-90210-abcdef, keep it to yourself"


def redaction(index, view, text="[redacted]"):
    return Edit(index, index + 1, ({**view[index], "content": text},), Mode.AMORTIZE, redact=True)


class Memory:
    """What the store's tensors hold."""

    def __init__(self, service):
        self.engine = service.engine
        self.store = service.engine.executor.store

    def snapshot(self):
        return [tensor.clone() for tensor in (*self.store.keys, *self.store.values)]

    def changed(self, before):
        """Slots whose content differs from the snapshot."""
        pairs = zip(before, self.snapshot(), strict=True)
        return torch.stack([(old != new).flatten(1).any(1) for old, new in pairs]).any(0).numpy()

    def is_zero(self, slots):
        tensors = (*self.store.keys, *self.store.values)
        return all(bool((tensor[slots] == 0).all()) for tensor in tensors)


def slots_of(sequence, start=0):
    return np.concatenate([np.arange(a, b) for a, b in sequence.extents(start)])


@pytest.fixture
def memory(tiny_service):
    for tensor in (*tiny_service.engine.executor.store.keys,):
        tensor.fill_(7.0)
    for tensor in (*tiny_service.engine.executor.store.values,):
        tensor.fill_(7.0)
    return Memory(tiny_service)


@pytest.fixture
def told(conversation, memory):
    """A conversation with a secret in message 2 and an answer behind it."""
    conversation.turn(user(SECRET), reply="I shall")
    conversation.turn(user(lines(6)), reply="ok")
    return conversation


def test_redacting_forgets_zeroes_and_tells(told, memory, tiny_model, check_pool):
    old = slots_of(told.sequence)
    receipt, logits = told.turn(user("next"), edits=[redaction(2, told.view)])
    [edit] = receipt.edits
    assert (edit.mode_asked, edit.mode_used, edit.reason) == (
        Mode.FORGET,
        Mode.FORGET,
        Reason.REDACTED,
    )
    assert edit.retained == 0
    gone = np.setdiff1d(old, slots_of(told.sequence))
    assert len(gone) > 100
    assert memory.is_zero(gone)
    assert list(told.held.versions) == [1, 2, 3]
    assert [v.evicted for v in told.held.versions.values()] == [True, True, False]
    assert SECRET not in repr(told.held)
    prompt = told.sequence.tokens[: told.held.newest.prompt_len]
    honest = Engine.of(tiny_model).start(Prompt(prompt)).logits
    torch.testing.assert_close(logits, honest, atol=1e-4 * float(honest.abs().max()), rtol=0)
    check_pool(told.service)


def test_redacting_touches_nothing_that_somebody_holds(told, memory, talk, check_pool):
    other = talk(told.service, "other", "elsewhere")
    other.turn(user(lines(6, 1)), reply="ok")
    same_tenant = talk(told.service, "third")
    same_tenant.turn(user(lines(6, 2)), reply="ok")
    told.turn(user("next"))
    before = memory.snapshot()
    request, messages = told.request([user("on")], [redaction(2, told.view)])
    told.service.recorded(request, {"role": "assistant", "content": "ok"})
    changed = np.flatnonzero(memory.changed(before))
    held = np.concatenate([slots_of(one.sequence) for one in (other, same_tenant)])
    assert not np.intersect1d(changed, held).size
    free = np.flatnonzero(told.service.engine.pool.references[changed] == 0)
    assert memory.is_zero(changed[free])
    check_pool(told.service)


def test_the_tree_no_longer_finds_the_text(told):
    secret_prompt = list(told.sequence.tokens)
    told.turn(user("next"), edits=[redaction(2, told.view)])
    tree = told.service.engine.forest.tree("")
    match = tree.match(secret_prompt)
    assert match.length == len_until_secret(told, secret_prompt)
    kept = told.sequence.tokens
    assert tree.match(kept).length == told.sequence.canonical_len == len(kept)


def len_until_secret(told, tokens):
    """How far the old prompt and the new one agree."""
    pairs = zip(tokens, told.sequence.tokens, strict=False)
    return next(index for index, (old, new) in enumerate(pairs) if old != new)


def test_lineages_the_session_has_left_are_scrubbed_too(told, stub, memory, check_pool):
    """Edits in front of the secret moved the session away from the prompts it began with."""
    first = list(told.sequence.tokens)
    told.turn(user("a"), edits=[stub(1, told.view, "Another task.", mode=Mode.FORGET)])
    for text in "bcdef":
        told.turn(user(text))
    assert 2 not in told.held.versions
    tree = told.service.engine.forest.tree("")
    match = tree.match(first)
    assert match.length == len(first)
    old = np.concatenate([np.arange(a, b) for a, b in match.extents])
    receipt, _ = told.turn(user("g"), edits=[redaction(2, told.view)])
    assert receipt.edits[0].retained == 0
    assert tree.match(first).length < 60
    assert memory.is_zero(np.setdiff1d(old, slots_of(told.sequence)))
    check_pool(told.service)


def test_spliced_kv_that_was_freed_before_is_zeroed(told, stub, memory, check_pool):
    """A redaction leaves nothing of the session in slots that happen to be free."""
    told.turn(user("a"), edits=[stub(1, told.view, "Another task.")])
    spliced = slots_of(told.sequence, told.sequence.canonical_len)
    told.turn(user("b"), edits=[stub(1, told.view, "A third task.", mode=Mode.FORGET)])
    engine = told.service.engine
    told.service.sessions.find("", "s").versions[3].evict()
    engine.forest.evict(engine.pool.num_slots)
    freed = spliced[engine.pool.references[spliced] == 0]
    assert freed.size
    assert not memory.is_zero(freed)
    told.turn(user("c"), edits=[redaction(2, told.view)])
    assert memory.is_zero(freed[engine.pool.references[freed] == 0])
    check_pool(told.service)


def test_what_another_session_was_given_too_is_retained_and_told(told, memory, talk, check_pool):
    """It shares the tenant's canonical KV of the very same text."""
    other = talk(told.service, "other")
    other.turn(user(SECRET), reply="I shall")
    receipt, _ = told.turn(user("next"), edits=[redaction(2, told.view)])
    shared = np.intersect1d(slots_of(other.sequence), slots_of(told.sequence))
    expected = np.setdiff1d(slots_of(other.sequence), shared)
    assert receipt.edits[0].retained > 20
    assert receipt.edits[0].retained <= len(expected)
    assert not memory.is_zero(expected)
    after, _ = other.turn(user("still here?"))
    assert after.reason is Reason.ASKED
    assert after.reused_exact >= after.previous
    check_pool(told.service)


def test_redacting_ahead(told, memory, check_pool):
    old = slots_of(told.sequence)
    receipt = told.edit_ahead(redaction(2, told.view))
    assert [e.reason for e in receipt.edits] == [Reason.REDACTED]
    assert memory.is_zero(np.setdiff1d(old, slots_of(told.sequence)))
    assert SECRET not in repr(told.held)
    receipt, _ = told.turn(user("next"))
    assert receipt.compute == receipt.appended
    check_pool(told.service)


def test_redacting_with_an_evicted_base_is_told_too(told, memory, check_pool):
    engine = told.service.engine
    engine.reclaim(engine.pool.num_slots)
    receipt, _ = told.turn(user("next"), edits=[redaction(2, told.view)])
    assert receipt.reason is Reason.EVICTED
    assert [(e.mode_used, e.reason) for e in receipt.edits] == [(Mode.FORGET, Reason.REDACTED)]
    free = np.flatnonzero((engine.pool.references == 0) & (engine.pool.epochs > 0))
    assert memory.is_zero(free)
    check_pool(told.service)


def test_only_the_redaction_is_told_as_one(told, stub):
    told.turn(user(lines(20, 5)), reply="ok")
    cuts = [redaction(2, told.view), stub(4, told.view, policy="p")]
    receipt, _ = told.turn(user("next"), edits=cuts)
    assert [(e.policy, e.reason) for e in receipt.edits] == [
        ("", Reason.REDACTED),
        ("p", Reason.BEHIND_FORGET),
    ]


def test_redacting_a_message_that_is_new(told, check_pool):
    new = user("and sk-live-11111-zzzzzz too")
    cut = redaction(len(told.view), [*told.view, new])
    receipt, _ = told.turn(new, edits=[cut])
    assert [(e.mode_used, e.reason) for e in receipt.edits] == [(Mode.FORGET, Reason.REDACTED)]
    check_pool(told.service)


def test_sampled_replies_that_stay_keep_their_ids(told):
    """A redaction must not make the next turn prefill the replies again."""
    letters = [told.service.chat.tokenizer.encode(c)[0] for c in "error in line"]
    request, messages = told.request([user("next")], [redaction(2, told.view)])
    reply = {"role": "assistant", "content": "error in line"}
    told.held.replies.keep(reply, letters)
    told.service.recorded(request, reply)
    told.took([*messages, reply], 3)
    assert told.sequence.tokens[-len(letters) :] == letters
    receipt, _ = told.turn(user("on"))
    assert (receipt.edits, receipt.reused_exact) == ((), receipt.previous)


def test_messages_that_quote_the_text_are_named(told):
    told.turn(user("I use sk-live-90210-abcdef here"), reply="noted")
    call = {"id": "c", "function": {"name": "run", "arguments": '{"key": "sk-live-90210-abcdef"}'}}
    told.turn(user("go"), reply={"role": "assistant", "content": None, "tool_calls": [call]})
    quoting = [4 + 2, 4 + 2 + 3]
    told.turn({"role": "tool", "tool_call_id": "c", "content": "done"})
    receipt, _ = told.turn(user("next"), edits=[redaction(2, told.view)])
    assert list(receipt.edits[0].quoted_in) == quoting


@pytest.mark.parametrize(
    ("removed", "message", "quotes"),
    [
        ("password hunter2222", "it was hunter2222.", True),
        ("a long enough line of text", "x\na long enough line of text\ny", True),
        ("a long enough line of text", "a long enough line", False),
        ("short", "short", False),
        ("wordwithoutdigits", "wordwithoutdigits", True),  # as a line of its own
        ("say wordwithoutdigits", "wordwithoutdigits", False),
        ("", "anything", False),
    ],
)
def test_quoting(removed, message, quotes):
    assert quoting_messages(removed, [user("hello"), user(message)]) == ((1,) if quotes else ())
