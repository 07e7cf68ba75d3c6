"""The vLLM adapter: what it sends, what it gives up, and what it hands on."""

from __future__ import annotations

import pytest
from fake_vllm import CHAT, STAGE, FakeVllm, paths, talk

from leyline_adapters.vllm.adapter import VllmAdapter
from leyline_adapters.vllm.client.planning import Limits
from leyline_agent.adapter import as_adapter
from leyline_agent.directive import Directive, Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import (
    InvalidSpan,
    StaleSession,
    UnknownSession,
)
from leyline_agent.receipt import Reason


def test_it_is_found_by_name() -> None:
    made = as_adapter("vllm")
    assert isinstance(made, VllmAdapter)
    assert made.url == "http://127.0.0.1:8000"
    made.close()


def test_a_deletion_is_one_request(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    fake.requests.clear()
    receipt = chat.turn("Go on.", edit=Edit(2, 3, (), Mode.AMORTIZE))
    assert receipt.reused_spliced > 0
    assert paths(fake) == [CHAT]


def test_a_replacement_is_computed_first_and_its_source_given_up_a_turn_later(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    chat.turn()
    fake.requests.clear()
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    assert paths(fake) == [STAGE, CHAT]
    stage, turn = fake.asks()
    assert [claim.source for claim in turn.claims][0] != turn.claims[-1].source
    assert receipt.prefilled == receipt.inserted + receipt.appended
    assert turn.release == ()
    chat.turn("Go on.")
    last = fake.asks()[-1]
    assert turn.claims[0].source in last.release
    assert stage.claims[0].source not in last.release  # the base, to which a harness may go back


def test_repair_computes_the_window_again(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.REPAIR))
    (edit,) = receipt.edits
    assert edit.mode_used is Mode.REPAIR
    assert edit.recomputed == {"boundary": 16}
    assert receipt.repair == "boundary"


def test_old_versions_are_given_up(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    for _ in range(6):
        chat.turn("Go on.")
    assert len(fake.sources) <= 4


def test_a_reply_that_reads_otherwise_is_still_reused(fake: FakeVllm, adapter: VllmAdapter) -> None:
    fake.replies = ["ab cd"]
    fake.sampled_as = {"ab cd": ["a", "b", "cd"]}
    fake.vocabulary.decode = lambda ids: "ab cd" if len(ids) == 4 else "x"  # type: ignore[method-assign]
    chat = talk(adapter)
    first = chat.turn()
    assert chat.reply["content"] == "ab cd"
    second = chat.turn("Go on.")
    assert second.removed == 0
    assert second.reused_exact == first.prompt + 3


def test_edits_after_edits_build_on_the_lineage(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    third = chat.turn("Go on.")
    assert third.reused_spliced > 0
    assert fake.asks()[-1].base
    fourth = chat.turn("Go on.", edit=Edit(2, 3, (), Mode.FORGET))
    assert fourth.reused_spliced == 0
    assert fake.asks()[-1].base == ""  # nothing before that edit is spliced


def test_another_tenant_has_another_salt(fake: FakeVllm) -> None:
    salts = []
    for options in ({"tenant": "one"}, {"tenant": "two"}, {"api_key": "k"}, {}):
        with VllmAdapter("http://vllm", transport=fake.transport, **options) as adapter:
            talk(adapter).turn()
            salts.append(fake.requests[-1][1].get("cache_salt"))
    assert len(set(salts)) == 4
    assert salts[-1] is None
    assert "k" != salts[2]


def test_what_only_the_adapter_asked_for_is_not_handed_on(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    chat.turn()
    assert "prompt_token_ids" not in chat.answer
    assert "token_ids" not in chat.answer["choices"][0]
    assert chat.answer["kv_transfer_params"] is None
    asking = talk(adapter, extra_body={"return_token_ids": True})
    asking.turn()
    assert asking.answer["prompt_token_ids"]


def test_a_call_that_is_no_sessions_is_vllms_own(fake: FakeVllm, adapter: VllmAdapter) -> None:
    answer = adapter.complete({"messages": [{"role": "user", "content": "hi"}], "model": "any"})
    assert "leyline" not in answer
    (_, body) = fake.requests[-1]
    assert "kv_transfer_params" not in body
    assert "model" not in body


def test_a_stream_without_the_plug_in_is_asked_about_behind_it(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    fake.plugin = False
    chat = talk(adapter)
    chat.turn(stream=True)
    assert paths(fake) == [CHAT, STAGE]
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE), stream=True)
    assert receipt.reason is Reason.ASKED
    assert receipt.reused_spliced > 0
    assert paths(fake)[2:] == [STAGE, CHAT, STAGE]
    assert not fake.asks()[-2].keep  # nobody would know its handle


def test_a_stream_tells_when_its_first_token_came(adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    assert (chat.turn(stream=True).ttft_ms or 0) > 0
    assert chat.turn("Go on.").ttft_ms is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_that_a_stop_string_ends_is_held_all_the_same(
    fake: FakeVllm, adapter: VllmAdapter, stream: bool
) -> None:
    chat = talk(adapter, stop=["</done>"])
    first = chat.turn(stream=stream)
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE), stream=stream)
    assert (first.reason, receipt.reason) == (Reason.ASKED, Reason.ASKED)
    assert receipt.previous > first.prompt
    assert receipt.reused_spliced > 0
    assert receipt.compute == receipt.inserted + receipt.appended
    told = chat.turn("Go on.")
    assert told.compute == told.appended


def test_the_figures_of_several_stages_are_in_the_usage(adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.REPAIR))
    assert chat.answer["usage"]["prompt_tokens_details"]["cached_tokens"] == receipt.reused
    assert receipt.edits[0].microseconds == receipt.splice_us > 0


def test_edits_of_tokens(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    name = chat.session.id
    cut = [Directive(20, 40, (), Mode.AMORTIZE)]
    first = adapter.apply(name, 1, cut)
    assert adapter.apply(name, 1, cut) == first  # a retry
    assert (first.version, first.removed, first.recomputed) == (2, 20, 0)
    with pytest.raises(StaleSession, match="at version 2, not 1"):
        adapter.apply(name, 1, [Directive(1, 2)])
    with pytest.raises(InvalidSpan):
        adapter.apply(name, 2, [Directive(5, 10**6)])
    with pytest.raises(UnknownSession):
        adapter.apply("nobody", 1, cut)


def test_a_session_that_ends_is_given_up(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    assert fake.sources
    assert adapter.drop(chat.session.id)
    assert not fake.sources
    assert not adapter.drop(chat.session.id)


def test_a_session_is_dropped_as_it_is(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    assert adapter.drop(chat.session)
    assert not fake.sources
    with pytest.raises(TypeError, match="a Session or its id, not Talk"):
        adapter.drop(chat)  # type: ignore[arg-type]


def test_a_stage_costs_more_than_a_short_suffix(fake: FakeVllm) -> None:
    limits = Limits(gate_tokens=500)
    with VllmAdapter("http://vllm", limits=limits, transport=fake.transport) as adapter:
        chat = talk(adapter)
        chat.turn()
        receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
        assert receipt.edits[0].mode_used is Mode.FORGET
        assert receipt.edits[0].reason is Reason.COST_GATE
        assert receipt.detail == (
            "edit 2.0: no more than Limits(gate_tokens=500) tokens are kept behind it"
        )
        assert receipt.reused_spliced == 0


def test_a_run_too_short_for_a_stage_names_the_limit(fake: FakeVllm) -> None:
    limits = Limits(stage_tokens=500)
    with VllmAdapter("http://vllm", limits=limits, transport=fake.transport) as adapter:
        chat = talk(adapter)
        chat.turn()
        receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
        assert receipt.edits[0].reason is Reason.COST_GATE
        assert "edit 2.0: only runs below Limits(stage_tokens=500)" in receipt.detail


def test_a_redaction_gives_up_all_that_saw_the_text_and_names_quotations(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    secret = "password-12345678"
    chat.messages[2]["content"] += " " + secret
    chat.turn()
    chat.turn(f"Use {secret} again.")
    held = set(fake.sources)
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE, redact=True))
    (edit,) = receipt.edits
    assert (edit.mode_used, edit.reason) == (Mode.FORGET, Reason.REDACTED)
    assert edit.retained == edit.end - edit.start
    assert [chat.view[index]["content"] for index in edit.quoted_in] == [f"Use {secret} again."]
    assert held & set(fake.sources) == set()
    assert not adapter._planner._renderer._known
    after = chat.turn("Go on.")
    assert after.compute == after.appended


def test_all_requests_of_a_session_name_it_to_a_load_balancer(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    for _ in range(2):
        chat = talk(adapter)
        chat.turn()
        chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE), stream=True)
    one, other = set(fake.affinity[:3]), set(fake.affinity[3:])
    assert len(one) == len(other) == 1
    assert None not in one | other
    assert one != other
