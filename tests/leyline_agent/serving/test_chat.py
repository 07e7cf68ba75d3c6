"""Whole conversations through the chat service, on a real model in float32."""

import pytest
from chat_texts import lines, user
from engine_cases import assert_close

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import ContextOverflow, InvalidRequest, OutOfSlots
from leyline_agent.receipt import Reason
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.wire import ChatRequest


def tool(text, call_id="c"):
    return {"role": "tool", "tool_call_id": call_id, "content": text}


@pytest.fixture
def honest(tiny_model):
    """Logits behind messages, prefilled from nothing."""

    def logits(messages, reply="fine", tools=None):
        service = ChatService(Engine.of(tiny_model), "tiny", tiny_model.tokenizer)
        request = ChatRequest(messages=messages, tools=tools)
        receipt, found = service.recorded(
            request, {"role": "assistant", "content": reply}, score=True
        )
        assert receipt.prefilled == receipt.prompt
        return found[0]

    return logits


def test_an_append_only_turn_prefills_only_what_is_new(conversation, honest, check_pool):
    conversation.turn(reply="I read the file")
    receipt, logits = conversation.turn(user("and now?"))
    assert receipt.previous == receipt.reused_exact
    assert receipt.compute == receipt.appended == receipt.prompt - receipt.previous
    assert (receipt.reason, receipt.edits) == (Reason.ASKED, ())
    assert_close(logits, honest(conversation.view[:-1]))
    check_pool(conversation.service)


def test_a_sampled_turn_is_followed_by_its_own_ids(conversation, check_pool):
    """The ids sampled are rarely those the reply's text would be encoded as."""
    request, messages = conversation.request(temperature=1.5, seed=3, max_tokens=40)
    answer = conversation.service.complete(request)
    reply = answer["choices"][0]["message"]
    sampled = answer["usage"]["completion_tokens"]
    conversation.took([*messages, reply], 1)
    receipt, _ = conversation.turn(user("go on"))
    assert receipt.reused_exact >= answer["usage"]["prompt_tokens"] + sampled - 1
    assert receipt.edits == ()
    check_pool(conversation.service)


def test_one_edit_splices(conversation, stub, check_pool):
    conversation.turn(user(lines(20)), reply="ok")
    conversation.turn(user(lines(8, 3)), reply="ok")
    cut = stub(2, conversation.view, policy="p")
    receipt, logits = conversation.turn(user("next"), edits=[cut])
    [told] = receipt.edits
    assert (told.mode_asked, told.mode_used, told.reason) == (
        Mode.AMORTIZE,
        Mode.AMORTIZE,
        Reason.ASKED,
    )
    assert (told.id, told.policy) == ("3.0", "p")
    assert receipt.reused_spliced == told.suffix > 50
    assert receipt.compute == receipt.inserted + receipt.appended < 30
    assert conversation.sequence.canonical_len < len(conversation.sequence)
    check_pool(conversation.service)


def test_forget_equals_an_honest_prefill(conversation, honest, stub):
    conversation.turn(user(lines(20)), reply="ok")
    conversation.turn(user(lines(8, 3)), reply="ok")
    cut = stub(2, conversation.view, mode=Mode.FORGET)
    receipt, logits = conversation.turn(user("next"), edits=[cut])
    assert receipt.reused_spliced == 0
    assert_close(logits, honest(conversation.view[:-1]))
    assert conversation.sequence.canonical_len == len(conversation.sequence)


def test_several_edits_in_one_commit(conversation, honest, stub, check_pool):
    for number in range(6):
        conversation.turn(user(lines(20, number)), reply=f"step {number}")
    view = conversation.view
    edits = [
        stub(2, view, policy="a"),
        Edit(4, 6, (), Mode.REPAIR, policy="b"),
        stub(8, view, mode=Mode.FORGET, policy="c"),
        stub(10, view, policy="d"),
    ]
    receipt, _ = conversation.turn(user("next"), edits=edits)
    assert [(e.policy, e.mode_used, e.reason) for e in receipt.edits] == [
        ("a", Mode.AMORTIZE, Reason.ASKED),
        ("b", Mode.REPAIR, Reason.ASKED),
        ("c", Mode.FORGET, Reason.ASKED),
        ("d", Mode.FORGET, Reason.BEHIND_FORGET),
    ]
    assert receipt.reused_spliced > 0
    assert receipt.recomputed == sum(sum(e.recomputed.values()) for e in receipt.edits) > 0
    check_pool(conversation.service)


def test_an_edit_of_a_message_that_is_new_is_told(conversation, honest, stub):
    """A policy may cut an observation the moment it arrives; the engine never saw the rest."""
    conversation.turn(user(lines(5)), reply="ok")
    conversation.turn(user(lines(5, 1)), reply="ok")
    new = user(lines(30, 2))
    cut = stub(len(conversation.view), [*conversation.view, new], mode=Mode.REPAIR, policy="new")
    old = stub(2, conversation.view, policy="old")
    receipt, _ = conversation.turn(new, edits=[old, cut])
    assert [(e.policy, e.mode_used, e.reason) for e in receipt.edits] == [
        ("old", Mode.AMORTIZE, Reason.ASKED),
        ("new", Mode.REPAIR, Reason.UNSEEN),
    ]
    assert receipt.reused_spliced > 0
    assert conversation.view[-2]["content"] == "gone"


def test_an_edit_that_changes_no_token_is_told(conversation):
    conversation.turn(user("hello"), reply="ok")
    same = Edit(2, 3, (user([{"type": "text", "text": "hello"}]),), Mode.REPAIR, policy="p")
    receipt, _ = conversation.turn(user("next"), edits=[same])
    assert [(e.policy, e.reason) for e in receipt.edits] == [("p", Reason.NO_CHANGE)]
    assert receipt.reused_exact == receipt.previous


def test_a_change_nobody_declared_is_forgotten(conversation, honest):
    conversation.turn(user(lines(10)), reply="ok")
    conversation.turn(user(lines(10, 1)), reply="ok")
    conversation.view[2] = user("quietly rewritten")
    receipt, logits = conversation.turn(user("next"))
    [told] = receipt.edits
    assert (told.mode_used, told.reason) == (Mode.FORGET, Reason.UNDECLARED)
    assert receipt.reused_spliced == 0
    assert_close(logits, honest(conversation.view[:-1]))


def test_an_edit_of_what_was_rewritten_without_a_word_keeps_nothing_behind_it(
    conversation, honest, stub
):
    """The harness rewrote message 2; the policy then cut the new one. Behind it all is FORGET."""
    conversation.turn(user(lines(20)), reply="ok")
    conversation.turn(user(lines(20, 1)), reply="ok")
    view = conversation.view
    conversation.view = [*view[:2], user(lines(20, 5)), *view[3:]]
    conversation.base_len = 2
    cut = stub(2, conversation.view, text="cut")
    receipt, logits = conversation.turn(user("next"), edits=[cut])
    assert receipt.reused_spliced == 0
    assert all(edit.mode_used is Mode.FORGET for edit in receipt.edits if edit.start != edit.end)
    assert_close(logits, honest(conversation.view[:-1]))


def test_an_unknown_base_is_an_ordinary_prefill(conversation, honest, talk):
    conversation.turn(user(lines(10)), reply="ok")
    stranger = talk(conversation.service, "other", "elsewhere", list(conversation.view))
    stranger.version, stranger.base_len = 7, len(stranger.view)
    receipt, logits = stranger.turn(user("next"))
    assert receipt.reason is Reason.UNKNOWN_SESSION
    assert "version 7 of session 'other' is not held here" in receipt.detail
    assert (receipt.prefilled, receipt.previous) == (receipt.prompt, 0)
    assert_close(logits, honest(stranger.view[:-1]))


def test_an_evicted_base_is_an_ordinary_prefill(conversation, honest, stub):
    conversation.turn(user(lines(10)), reply="ok")
    conversation.turn(user(lines(10, 1)), reply="ok")
    engine = conversation.service.engine
    engine.reclaim(engine.pool.num_slots)
    assert engine.pool.num_used == 0
    cut = stub(2, conversation.view)
    receipt, logits = conversation.turn(user("next"), edits=[cut])
    assert receipt.reason is Reason.EVICTED
    assert receipt.prefilled == receipt.prompt
    assert_close(logits, honest(conversation.view[:-1]))


def test_a_digest_that_does_not_match_is_an_ordinary_prefill(conversation, stub):
    conversation.turn(user(lines(10)), reply="ok")
    cut = stub(2, conversation.view)
    receipt, _ = conversation.turn(user("a"), edits=[cut], commit={"view_digest": "0" * 32})
    assert receipt.reason is Reason.DIGEST_MISMATCH
    assert receipt.reused_spliced == 0


def test_a_branch_from_an_older_version(conversation, honest, stub, check_pool):
    conversation.turn(user(lines(10)), reply="ok")
    old, at = conversation.view, conversation.version
    conversation.turn(user("one way"), reply="done")
    conversation.turn(user("further"), edits=[stub(2, conversation.view)])
    newest = conversation.version
    conversation.took(old, at)
    receipt, logits = conversation.turn(user("another way"), commit={"version": newest + 1})
    assert receipt.reason is Reason.ASKED
    assert receipt.reused_exact >= receipt.previous
    assert_close(logits, honest(conversation.view[:-1]))
    check_pool(conversation.service)


def test_the_newest_versions_are_kept(conversation, check_pool):
    for number in range(7):
        conversation.turn(user(f"step {number}"))
        check_pool(conversation.service)
    assert list(conversation.held.versions) == [4, 5, 6, 7]


def test_tool_calls_and_results(conversation, check_pool):
    declared = {"type": "function", "function": {"name": "read", "parameters": {}}}
    call = {"id": "c", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call]}
    conversation.turn(reply=reply, tools=[declared])
    receipt, _ = conversation.turn(tool(lines(4)), tools=[declared])
    assert receipt.prefilled == receipt.appended
    assert receipt.edits == ()
    check_pool(conversation.service)


def test_other_tools_change_the_prompt_from_the_start(conversation, honest):
    declared = {"type": "function", "function": {"name": "read", "parameters": {}}}
    conversation.turn(user(lines(5)), tools=[declared])
    receipt, logits = conversation.turn(user("next"))
    assert [e.reason for e in receipt.edits] == [Reason.UNDECLARED]
    assert_close(logits, honest(conversation.view[:-1]))


def test_a_stream_closed_early_leaves_the_version_before_it(conversation, honest, check_pool):
    conversation.turn(user(lines(10)), reply="ok")
    request, _ = conversation.request([user("next")], max_tokens=50, seed=1)
    stream = conversation.service.stream(request)
    assert next(stream)["choices"][0]["delta"]["role"] == "assistant"
    next(stream)
    stream.close()
    assert conversation.held.newest.number == 1
    check_pool(conversation.service)
    receipt, logits = conversation.turn(user("next"))
    assert receipt.reused_exact >= receipt.previous
    assert_close(logits, honest(conversation.view[:-1]))


def test_streams_that_take_turns_do_not_disturb_one_another(tiny_service, talk, stub, check_pool):
    """Two edited sessions generate by turns, both in working copies; each as if it were alone."""
    tiny_service.engine.executor.backend.max_segments = 1
    texts = {}
    for alone in (True, False):
        talks = [talk(tiny_service, f"{name}-{alone}", f"{name}-{alone}") for name in "ab"]
        streams = []
        for number, one in enumerate(talks):
            one.turn(user(lines(12, number)), reply="ok")
            one.turn(user(lines(4, number)), reply="ok")
            cut = stub(2, one.view)
            request, _ = one.request([user("next")], [cut], max_tokens=25, temperature=0)
            streams.append(tiny_service.stream(request, one.tenant))
        said = ["", ""]
        waiting = [0, 1] if alone else [0, 1] * 60
        for which in waiting:
            chunks = streams[which] if alone else [next(streams[which], None)]
            for chunk in chunks:
                if chunk and chunk["choices"]:
                    said[which] += chunk["choices"][0]["delta"].get("content") or ""
        texts[alone] = said
        check_pool(tiny_service)
    assert texts[True] == texts[False]
    assert len(texts[True][0]) > 10


def test_out_of_slots_while_generating(tiny_model, talk, check_pool):
    """The request fails with a clear error; the version before it stays."""
    service = small_service(tiny_model, 170)
    one = talk(service)
    one.turn(user(lines(2)), reply="ok")
    request, _ = one.request([user("next")], max_tokens=200, temperature=1.2, seed=1)
    with pytest.raises(OutOfSlots, match="slots are needed"):
        service.complete(request)
    assert one.held.newest.number == 1
    check_pool(service)
    receipt, _ = one.turn(user("next"))
    assert receipt.prompt == len(one.sequence) - 1 or receipt.prompt < len(one.sequence)
    check_pool(service)


def small_service(model, num_slots):
    size = 2 * 2 * 2 * 16 * 4  # layers, heads, keys and values, head size, float32
    config = EngineConfig(kv_bytes=2 * num_slots * size)
    service = ChatService(Engine.of(model, config), "tiny", model.tokenizer)
    assert service.engine.pool.num_slots == num_slots
    return service


def test_a_session_makes_room_for_itself(tiny_model, talk, honest, check_pool):
    """Older versions that nothing edits are given up before a request is refused."""
    service = small_service(tiny_model, 400)
    one = talk(service)
    for number in range(4):
        one.view = [one.view[0], user(lines(10, number))]
        _, logits = one.turn(edits=(), commit={"base_len": 1})
        assert_close(logits, honest(one.view[:-1]))
        check_pool(service)
    assert any(version.evicted for version in one.held.versions.values())


def test_a_prompt_over_the_context_leaves_the_session_as_it_was(conversation, check_pool):
    conversation.turn(user("short"))
    request, _ = conversation.request([user("no such file " * 3000)])
    with pytest.raises(ContextOverflow, match="do not fit the model's context of 4096"):
        conversation.service.complete(request)
    assert conversation.held.newest.number == 1
    check_pool(conversation.service)
    conversation.turn(user("shorter"))


def test_a_template_that_refuses_leaves_the_session_as_it_was(conversation, check_pool):
    conversation.turn(user("short"))
    service = conversation.service
    template = service.chat.template
    service.chat.template = "{{ raise_exception('no') }}"
    service.chat.forget_texts()
    request, _ = conversation.request([user("next")])
    with pytest.raises(InvalidRequest, match="refuses these messages"):
        service.complete(request)
    service.chat.template = template
    service.chat.forget_texts()
    check_pool(service)
    assert conversation.turn(user("next"))[0].reason is Reason.ASKED


def test_a_session_dropped_while_it_generates_takes_nothing_more(conversation, check_pool):
    request, _ = conversation.request(max_tokens=20, seed=1)
    stream = conversation.service.stream(request)
    next(stream)
    next(stream)
    conversation.service.sessions.drop("", "s")
    for _ in stream:
        pass
    assert conversation.held is None
    check_pool(conversation.service)
    engine = conversation.service.engine
    engine.forest.evict(engine.pool.num_slots)
    assert engine.pool.num_used == 0
