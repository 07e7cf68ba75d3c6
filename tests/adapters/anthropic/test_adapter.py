import pytest

import leyline_agent as leyline
from leyline_adapters.anthropic.adapter import BETA, KIND, AnthropicAdapter
from leyline_agent import AdapterError, Mode, Session
from leyline_agent.adapter import as_adapter
from leyline_agent.policy import as_policy

ASK = [{"role": "user", "content": "Fix it."}]
POLICY = "clear_tool_uses:trigger=1000,keep=2"
EDIT = {
    "type": KIND,
    "trigger": {"type": "input_tokens", "value": 1000},
    "keep": {"type": "tool_uses", "value": 2},
}


def delegating(policies=POLICY, **options):
    return Session(policies, AnthropicAdapter(server_side=True), **options)


def sent(session, **request):
    return session.begin(ASK, model="m", **request).request


def answered(**more):
    usage = {"input_tokens": 10, "cache_read_input_tokens": 80, "cache_creation_input_tokens": 10}
    return {"type": "message", "role": "assistant", "content": [], "usage": usage, **more}


def test_it_is_found_by_name_and_adds_nothing():
    assert isinstance(as_adapter("anthropic"), AnthropicAdapter)
    session = Session(POLICY, "anthropic")
    assert sent(session) == {"model": "m", "messages": ASK}
    assert session.adapter.capabilities.modes == {Mode.FORGET}


def test_the_receipt_is_what_the_cache_did():
    session = Session(adapter="anthropic")
    receipt = session.begin(ASK).finish(answered())
    assert (receipt.prompt, receipt.reused_exact, receipt.prefilled) == (100, 80, 20)
    assert (receipt.cache_read, receipt.cache_written) == (80, 10)
    assert AnthropicAdapter().receipt({"content": []}) is None


def test_the_policy_in_anthropics_words():
    assert sent(delegating())["extra_body"] == {"context_management": {"edits": [EDIT]}}
    assert sent(delegating())["extra_headers"] == {"anthropic-beta": BETA}
    policy = POLICY + ",clear_at_least=500,exclude_tools=web,clear_tool_inputs=true"
    (edit,) = sent(delegating(policy))["extra_body"]["context_management"]["edits"]
    assert edit == {
        **EDIT,
        "clear_at_least": {"type": "input_tokens", "value": 500},
        "exclude_tools": ["web"],
        "clear_tool_inputs": True,
    }


def test_what_the_caller_adds_stays():
    request = sent(
        delegating(), extra_body={"x": 1}, extra_headers={"Anthropic-Beta": "files", "a": "b"}
    )
    assert request["extra_body"]["x"] == 1
    assert request["extra_headers"] == {"Anthropic-Beta": f"files,{BETA}", "a": "b"}
    request = sent(delegating(), betas=["files"])
    assert request["betas"] == ["files", BETA]
    assert "extra_headers" not in request


@pytest.mark.parametrize(
    "own", [{"context_management": {"edits": []}}, {"extra_body": {"context_management": {}}}]
)
def test_a_callers_own_context_management_stands(own):
    assert sent(delegating(), **own) == {"model": "m", "messages": ASK, **own}


LONG = [
    *ASK,
    *(
        message
        for n in range(5)
        for message in (
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": ""}}
                ],
            },
            {"role": "tool", "tool_call_id": f"c{n}", "content": "x" * 4000},
        )
    ),
]


def test_never_both():
    assert delegating().begin(LONG).request["messages"] == LONG
    turn = Session(POLICY, AnthropicAdapter()).begin(LONG)
    assert len(turn.edits) == 3
    both = delegating(["cap_at_ingestion:max_chars=1000", POLICY]).begin(LONG)
    assert {edit.policy for edit in both.edits} == {"cap_at_ingestion"}
    assert both.request["extra_body"]["context_management"] == {"edits": [EDIT]}


@pytest.mark.parametrize(
    ("policies", "options", "reason"),
    [
        (POLICY + ",at_least=batch", {}, "at_least='batch'"),
        (POLICY + ",placeholder=gone", {}, "placeholder"),
        ([POLICY, "keep_last:n=9"], {}, "policies behind it"),
        ([POLICY, POLICY], {}, "twice"),
        (POLICY, {"pinned": lambda message: False}, "pinned"),
        (POLICY, {"recall": True}, "recalled"),
        (POLICY, {"observations": "user"}, "observations"),
    ],
)
def test_what_means_something_else_is_edited_here_and_told(policies, options, reason):
    session = delegating(policies, **options)
    turn = session.begin(LONG)
    assert "extra_body" not in turn.request
    if "observations" not in options:
        assert turn.edits
    assert reason in turn.finish(answered()).detail


def test_a_policy_inside_another_is_not_left_to_the_server():
    session = delegating("when:condition=turns>9,policy=(clear_tool_uses:trigger=1000)")
    turn = session.begin(ASK)
    assert "extra_body" not in turn.request
    assert "inside another" in turn.finish(answered()).detail


def test_a_pipeline_in_a_pipeline():
    inner = leyline.Pipeline(policies=[as_policy("keep_last:n=9"), as_policy(POLICY)])
    session = delegating([as_policy("cap_at_ingestion"), inner])
    assert sent(session)["extra_body"] == {"context_management": {"edits": [EDIT]}}


def test_what_the_server_did_is_on_the_receipt():
    """The figures add up: what was sent, less what was cleared, is the prompt."""
    applied = [{"type": KIND, "cleared_tool_uses": 3, "cleared_input_tokens": 2900}]
    session = delegating(["cap_at_ingestion:max_chars=1000", POLICY])
    turn = session.begin(LONG)
    receipt = turn.finish(answered(context_management={"applied_edits": applied}))
    assert (receipt.prompt, receipt.removed, receipt.appended) == (100, 2900, 3000)
    *here, there = receipt.edits
    assert {edit.policy for edit in here} == {"cap_at_ingestion"}
    assert (there.policy, there.mode_used, there.by_provider) == (
        "clear_tool_uses", Mode.FORGET, True,
    )  # fmt: skip
    assert session.history[-2]["content"] == "x" * 4000


def test_a_server_that_has_nothing_to_clear():
    receipt = delegating().begin(ASK).finish(answered(context_management={"applied_edits": []}))
    assert (receipt.removed, receipt.edits) == (0, ())


def test_pins_and_the_server():
    session = delegating()
    session.begin(ASK).finish(answered())
    with pytest.raises(AdapterError, match="server_side"):
        session.pin(0)


@pytest.mark.parametrize("stream", [False, True])
def test_with_the_real_client(client, scripted, stream):
    applied = [{"type": KIND, "cleared_tool_uses": 1, "cleared_input_tokens": 7}]
    scripted.extras = {"context_management": {"applied_edits": applied}}
    options = {"model": "m", "max_tokens": 9, "messages": ASK}
    adapter = AnthropicAdapter(server_side=True)
    with leyline.instrument_anthropic(policies=POLICY, adapter=adapter) as handle:
        if stream:
            with client.messages.stream(**options) as events:
                events.until_done()
        else:
            client.messages.create(**options)
    (request,) = scripted.requests
    assert request["context_management"] == {"edits": [EDIT]}
    assert request["headers"]["anthropic-beta"] == BETA
    (receipt,) = handle.sessions[0].receipts
    assert (receipt.removed, receipt.edits[0].by_provider) == (7, True)
