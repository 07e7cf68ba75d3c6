"""The vLLM adapter: what it sends, what it gives up, and what goes wrong at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fake_vllm import FakeVllm

from leyline_adapters.bundled import http_errors
from leyline_adapters.vllm.adapter import VllmAdapter
from leyline_adapters.vllm.client.planning import Limits
from leyline_agent.adapter import Commit, as_adapter
from leyline_agent.directive import Directive, Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import (
    AdapterError,
    ContextOverflow,
    EngineUnavailable,
    InvalidSpan,
    StaleSession,
    UnknownSession,
)
from leyline_agent.receipt import Reason
from leyline_agent.testing.talk import Talk, long_text

CHAT, STAGE = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_errors, "_backoff", lambda state: 0.0)


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm()


@pytest.fixture
def adapter(fake: FakeVllm) -> Iterator[VllmAdapter]:
    with VllmAdapter("http://vllm/v1/", transport=fake.transport) as made:
        yield made


def talk(adapter: VllmAdapter, **options: Any) -> Talk:
    made = Talk(adapter, {"temperature": 0, "max_tokens": 6, **options})
    made.say("You help.", role="system")
    made.say("Tell what you see.")
    made.say(long_text(80, 1), role="assistant")
    made.say(long_text(80, 2))
    return made


def paths(fake: FakeVllm) -> list[str]:
    return [path for path, _ in fake.requests if path != "/tokenize"]


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


def test_evicted_sources_are_an_ordinary_prefill(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    fake.sources.clear()
    fake.forget()
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    assert receipt.reason is Reason.UNKNOWN_SESSION
    assert receipt.edits[0].mode_used is Mode.FORGET
    assert receipt.edits[0].reason is Reason.UNKNOWN_SESSION
    assert receipt.reused == receipt.recomputed == 0


def test_a_server_without_room_says_so(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    fake.keeps = 0
    chat.turn()
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    assert receipt.reason is Reason.EVICTED
    assert "no KV of version 1" in receipt.detail
    assert paths(fake) == [CHAT, CHAT]


def test_a_failed_turn_gives_its_stages_up(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    turn = chat.begin("Go on.", edit=chat.stub(2, Mode.AMORTIZE))

    class Failing(list):  # type: ignore[type-arg]
        """The stage is answered, the turn is not."""

        def __bool__(self) -> bool:
            return fake.requests[-1][0] == CHAT

    fake.failures = Failing([httpx.Response(400, json={"error": {"message": "no"}})])
    with pytest.raises(AdapterError, match="answered 400: no"):
        adapter.complete(turn.request)
    fake.failures = []
    stage = fake.asks()[-1].claims[0].source
    adapter.complete(turn.request)
    assert any(stage in ask.release for ask in fake.asks())


def test_a_lost_connection_is_tried_again_and_acts_once(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    chat.turn()
    fake.failures = [httpx.ReadError("gone"), httpx.Response(503, json={})]
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    assert receipt.version == 2
    assert receipt.reused_spliced > 0


def test_a_server_that_is_gone() -> None:
    gone = httpx.MockTransport(lambda request: (_ for _ in ()).throw(httpx.ConnectError("refused")))
    with (
        VllmAdapter("http://vllm", transport=gone, attempts=2) as adapter,
        pytest.raises(EngineUnavailable, match="no answer from http://vllm"),
    ):
        talk(adapter).turn()


def test_a_model_that_is_not_served(fake: FakeVllm) -> None:
    with (
        VllmAdapter("http://vllm", model="other", transport=fake.transport) as adapter,
        pytest.raises(AdapterError, match="Valid aliases: fake"),
    ):
        talk(adapter).turn()


def test_a_prompt_that_is_too_long(adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.say(long_text(5000, 3))
    with pytest.raises(ContextOverflow, match="maximum context length"):
        chat.turn()


def test_a_connector_of_another_release(fake: FakeVllm, adapter: VllmAdapter) -> None:
    fake.protocol = 2
    with pytest.raises(AdapterError, match="speaks protocol 2, this adapter 1"):
        talk(adapter).turn()


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


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"n": 2}, "several replies"),
        ({"extra_body": {"echo": True}}, "'echo'"),
        ({"extra_body": {"add_generation_prompt": False}}, "generation prompt"),
    ],
)
def test_what_cannot_be_planned_is_sent_as_it_is(
    adapter: VllmAdapter, more: dict[str, Any], words: str
) -> None:
    receipt = talk(adapter, **more).turn()
    assert receipt.reason is Reason.ENGINE_CANNOT_SPLICE
    assert words in receipt.detail


def test_pictures_are_not_spliced(adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    picture = {"type": "text", "text": "a"}, {"type": "input_audio", "text": "b"}
    chat.messages.append({"role": "user", "content": list(picture)})
    assert "other things than text" in chat.turn().detail


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


def test_a_server_that_cannot_be_asked_behind_a_reply_costs_no_reply(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    chat.turn()
    fake.plugin = False
    turn = chat.begin("Go on.")
    chunks = []
    for chunk in adapter.stream(turn.request):
        chunks.append(chunk)
        fake.failures = [httpx.Response(400, json={"error": {"message": "too late"}})]
    assert chunks[-1]["leyline"]["reason"] == "no_receipt"


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


def test_an_edit_ahead_of_a_session_that_is_not_there(adapter: VllmAdapter) -> None:
    request = {"messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(UnknownSession):
        adapter.edit_ahead(request, Commit(session="nobody", base_version=1, version=2))


def test_a_session_that_ends_is_given_up(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    assert fake.sources
    assert adapter.drop(chat.session.id)
    assert not fake.sources
    assert not adapter.drop(chat.session.id)


def test_a_number_is_never_used_twice(adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    chat.turn("Go on.")
    other = Commit(session=chat.session.id, base_version=1, version=2, view_digest="other")
    with pytest.raises(StaleSession, match="another commit"):
        adapter.complete(adapter.prepare({"messages": chat.messages}, other))


def test_an_extra_body_that_is_no_commit(adapter: VllmAdapter) -> None:
    request = {"messages": [], "extra_body": {"leyline": {"session": ""}}}
    with pytest.raises(AdapterError, match="no commit"):
        adapter.complete(request)


def test_cancelled_while_it_is_planned(fake: FakeVllm, adapter: VllmAdapter) -> None:
    chat = talk(adapter)
    chat.turn()
    turn = chat.begin("Go on.", edit=chat.stub(2, Mode.AMORTIZE))

    async def cancelled() -> None:
        task = asyncio.create_task(adapter.acomplete(turn.request))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    turn.fail("cancelled")
    chat.messages.pop()
    assert chat.turn("Go on.").version == 2


def test_a_stage_costs_more_than_a_short_suffix(fake: FakeVllm) -> None:
    limits = Limits(gate_tokens=500)
    with VllmAdapter("http://vllm", limits=limits, transport=fake.transport) as adapter:
        chat = talk(adapter)
        chat.turn()
        receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
        assert receipt.edits[0].mode_used is Mode.FORGET
        assert receipt.edits[0].reason is Reason.COST_GATE
        assert receipt.reused_spliced == 0


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


def test_halves_of_surrogate_pairs_are_sent_as_something_readable(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    chat.say("half \ud83d, whole \U0001f600")
    assert chat.turn().reason is Reason.ASKED
    assert chat.turn("Go on.").removed == 0
    sent = fake.requests[-1][1]["messages"][4]["content"]
    assert sent == "half \ufffd, whole \U0001f600"
