"""Planning turns: whatever a client claims, the prompt is its messages and nothing else."""

import string

import pytest
from chat_texts import lines, user
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyline_agent.adapter import WireEdit
from leyline_agent.directive import Mode, apply
from leyline_agent.edit import Edit
from leyline_agent.quoting import readable
from leyline_agent.receipt import Reason
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.turns import plan_ahead, plan_chat


@pytest.fixture(scope="module")
def chat(tiny_model):
    return ChatRenderer(tiny_model.tokenizer)


@pytest.fixture
def counted(tiny_model, chat, talk):
    """Conversations with an engine that does the accounting and no arithmetic."""
    service = ChatService(Engine.counting(60_000), "none", tiny_model.tokenizer, chat)
    return lambda name="s": talk(service, name)


words = st.text(string.ascii_lowercase + " ", max_size=40)
messages = st.builds(
    lambda role, text: {"role": role, "content": text},
    st.sampled_from(["user", "assistant", "tool"]),
    words,
)
wire_edits = st.builds(
    WireEdit,
    messages=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    count=st.integers(0, 4),
    mode=st.sampled_from(Mode),
    redact=st.booleans(),
)


@given(
    base=st.lists(messages, min_size=1, max_size=6),
    view=st.lists(messages, min_size=1, max_size=9),
    shared=st.integers(0, 8),
    edits=st.lists(wire_edits, max_size=4),
    base_len=st.integers(0, 9),
)
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_claim_gives_the_prompt_of_the_messages(counted, base, view, shared, edits, base_len):
    one = counted()
    one.service.sessions.drop("", "s")
    one.view = base
    one.turn(reply="ok")
    view = [*one.view[:shared], *view]
    commit = one.commit(view, ()).model_copy(update={"edits": tuple(edits), "base_len": base_len})
    turn = plan_chat(one.service.chat, view, [], "", one.held, commit)
    assert turn.prompt.tokens == one.service.chat.render(view, [], one.held.replies)
    check_claims(turn, len(turn.prompt.tokens))
    if turn.reason is Reason.INVALID_EDIT:
        return
    ahead = plan_ahead(one.service.chat, view, [], one.held, one.held.newest, commit)
    check_claims(ahead, len(ahead.prompt.tokens))
    assert ahead.prompt.appended == 0
    assert ahead.prompt.tokens == turn.prompt.tokens[: len(ahead.prompt.tokens)]
    told = sum(len(item.edits) for item in turn.prompt.items)
    assert told + len(turn.without) == len(edits)


def check_claims(turn, length):
    """The directives lead from what is held to the prompt, up to what is appended."""
    held = turn.prompt.previous.tokens
    claimed = apply(held, [item.directive for item in turn.prompt.items])
    assert claimed == turn.prompt.tokens[: len(claimed)]
    assert len(claimed) + turn.prompt.appended == length


flows = st.lists(
    st.tuples(
        st.integers(1, 3),  # new lines
        st.lists(
            st.tuples(st.floats(0, 0.99), st.sampled_from(Mode), st.integers(0, 3)), max_size=3
        ),
        st.sampled_from(["turn", "turn", "turn", "ahead", "branch", "retry"]),
    ),
    min_size=3,
    max_size=12,
)


@given(flow=flows, seed=st.integers(0, 1000))
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_conversation_adds_up_and_leaks_nothing(counted, check_pool, flow, seed):
    one = counted()
    history = []
    for number, (size, cuts, kind) in enumerate(flow):
        edits = legal(one.view, cuts)
        known = {}
        if kind == "branch" and history:
            newest = max(version for _, version in history)
            one.took(*history[seed % len(history)])
            edits, known = legal(one.view, cuts), {"commit": {"version": newest + 1}}
        before = (list(one.view), one.version)
        if kind == "ahead" and one.version and edits:
            receipt = one.edit_ahead(*edits)
        else:
            receipt, _ = one.turn(user(lines(size, seed + number)), edits=edits, **known)
        check_receipt(one, receipt, edits)
        if kind == "retry":
            version, base_len = one.version, len(before[0])
            one.took(*before)
            one.base_len = base_len if before[1] else 0
            again, _ = one.turn(
                user(lines(size, seed + number)), edits=edits, commit={"version": version}
            )
            assert again.reason is (Reason.RETRY if one.held else Reason.ASKED)
            assert again.compute <= 2
        history.append((list(one.view), one.version))
        check_pool(one.service)
    one.service.sessions.drop("", "s")
    engine = one.service.engine
    engine.forest.evict(engine.pool.num_slots)
    assert engine.pool.num_used == 0


def legal(view, cuts):
    """Edits of messages behind the task, apart from one another."""
    edits, cursor = [], 2
    for where, mode, size in sorted(cuts, key=lambda c: c[0]):
        start = max(cursor, 2 + int(where * (len(view) - 2)))
        if start < len(view):
            replacement = tuple(user(f"stub {i}") for i in range(size))
            edits.append(Edit(start, start + 1, replacement, mode, policy=f"p{len(edits)}"))
            cursor = start + 2
    return edits


def check_receipt(one, receipt, edits):
    told = [e.policy for e in receipt.edits if e.policy]
    if receipt.reason is Reason.ASKED and receipt.base_version:
        assert [policy for each in told for policy in each.split("+")] == [e.policy for e in edits]
    for edit in receipt.edits:
        assert edit.mode_used.strength >= edit.mode_asked.strength
    spliced = one.sequence.canonical_len < receipt.prompt
    assert bool(receipt.reused_spliced) <= spliced


def test_receipts_stand_in_the_order_of_the_edits(counted, stub):
    """Those that became no directive among those that did."""
    one = counted()
    for number in range(4):
        one.turn(user(lines(20, number)), reply=f"r{number}")
    new = [user(lines(2, 8)), user(lines(2, 9))]
    view = [*one.view, *new]
    edits = [
        stub(2, view, policy="a"),
        Edit(3, 4, (dict(view[3]),), Mode.AMORTIZE, policy="same"),
        stub(4, view, policy="b"),
        stub(len(view) - 1, view, policy="new"),
    ]
    receipt, _ = one.turn(*new, edits=edits)
    assert [(e.policy, e.reason) for e in receipt.edits] == [
        ("a", Reason.ASKED),
        ("same", Reason.NO_CHANGE),
        ("b", Reason.ASKED),
        ("new", Reason.UNSEEN),
    ]
    at = len(view) - 1
    behind = f"the edit of messages [{at}, {at + 1}) lies behind version 4, which has {at - 1} mes"
    assert receipt.detail.startswith(behind)


def test_an_edit_that_reaches_into_what_is_new_is_undeclared(counted):
    one = counted()
    one.turn(user(lines(3)), reply="r")
    new = user(lines(3, 1))
    cut = Edit(3, 5, (user("both"),), Mode.AMORTIZE, policy="p")
    receipt, _ = one.turn(new, edits=[cut])
    assert [(e.policy, e.mode_used, e.reason) for e in receipt.edits] == [
        ("p", Mode.FORGET, Reason.UNDECLARED),
        ("", Mode.FORGET, Reason.UNDECLARED),
    ]
    assert receipt.detail == (
        "the edit of messages [3, 5) reaches past the end of version 1, which has 4 messages here"
    )


def test_an_insertion_where_another_edit_begins_is_not_edited_itself(counted):
    one = counted()
    one.turn(user(lines(20)), reply="r")
    one.turn(user(lines(20, 1)), reply="r")
    view = one.view
    edits = [Edit(2, 2, (user("a note"),), Mode.AMORTIZE), Edit(2, 4, (), Mode.AMORTIZE)]
    ahead = one.edit_ahead(*edits)
    assert one.view == [*view[:2], user("a note"), *view[4:]]
    assert one.sequence.tokens == one.service.chat.render(one.view)[: ahead.prompt]
    assert one.turn(user("next"))[0].edits == ()


def test_inserting_a_message(counted):
    one = counted()
    one.turn(user(lines(20)), reply="r")
    one.turn(user(lines(20, 1)), reply="r")
    note = Edit(3, 3, (user("a note"),), Mode.AMORTIZE, policy="p")
    receipt, _ = one.turn(user("next"), edits=[note])
    [told] = receipt.edits
    assert (told.start, told.mode_used) == (told.end, Mode.AMORTIZE)
    assert receipt.reused_spliced == told.suffix > 100


def test_a_view_between_two_edits_that_the_template_refuses(tiny_model, talk, check_pool):
    """Roles must alternate, so that one edit without the other cannot be rendered."""
    import copy

    tokenizer = copy.deepcopy(tiny_model.tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if not loop.first and m.role == loop.previtem.role %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant"
        "{% endif %}"
    )
    one = talk(ChatService(Engine.counting(60_000), "strict", tokenizer))
    for number in range(3):
        one.turn(*([user(lines(3, number))] if number else []), reply=f"r{number}")
    cuts = [Edit(3, 4, (), policy="a", redact=True), Edit(4, 5, (), policy="b")]
    receipt, _ = one.turn(user("next"), edits=cuts)
    assert receipt.reason is Reason.INVALID_EDIT
    assert "roles must alternate" in receipt.detail
    assert [(e.policy, e.mode_used, e.reason) for e in receipt.edits] == [
        ("a", Mode.FORGET, Reason.REDACTED),
        ("b", Mode.FORGET, Reason.INVALID_EDIT),
        ("", Mode.FORGET, Reason.UNDECLARED),
    ]
    check_pool(one.service)
    assert one.turn(user("on"))[0].reason is Reason.ASKED


def test_readable_text_includes_the_arguments_of_calls():
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {"role": "assistant", "content": "x", "tool_calls": [call]}
    assert readable(message).split() == ["x", '{"a":', "1}"]
    old = {"role": "assistant", "content": None, "function_call": {"arguments": "{}"}}
    assert readable(old).strip() == "{}"
