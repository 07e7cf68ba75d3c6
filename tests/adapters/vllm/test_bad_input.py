"""What goes wrong at the other end, and what the adapter is given that it cannot take."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fake_vllm import CHAT, FakeVllm, paths, talk

from leyline_adapters.vllm.adapter import VllmAdapter
from leyline_agent.adapter import Commit
from leyline_agent.directive import Mode
from leyline_agent.errors import (
    AdapterError,
    ContextOverflow,
    EngineUnavailable,
    StaleSession,
    UnknownSession,
)
from leyline_agent.receipt import Reason
from leyline_agent.testing.talk import long_text


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
        pytest.raises(EngineUnavailable, match="no answer from http://vllm.*serve --engine vllm`"),
    ):
        talk(adapter).turn()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(404, text="404 page not found"),
        httpx.Response(405, json={"error": {"message": "Method Not Allowed", "code": 405}}),
        httpx.Response(200, json={"tokens": []}),
        httpx.Response(200, json={"object": "list"}),
    ],
)
def test_a_server_that_is_not_vllm(answer: httpx.Response) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return answer

    with (
        VllmAdapter("http://other", transport=httpx.MockTransport(handle)) as adapter,
        pytest.raises(AdapterError, match="no POST /tokenize there; is this vLLM.*'openai'"),
    ):
        talk(adapter).turn()


def test_tools_that_the_server_cannot_read_calls_of(fake: FakeVllm, adapter: VllmAdapter) -> None:
    words = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    refusal = {"error": {"message": words, "type": "BadRequestError", "code": 400}}
    todo = r"serve --engine vllm \.\.\. -- --enable-auto-tool-choice --tool-call-parser NAME"
    chat = talk(adapter)
    fake.failures = [httpx.Response(400, json=refusal) for _ in range(3)]
    with pytest.raises(AdapterError, match=todo):
        chat.turn()
    with pytest.raises(AdapterError, match=todo):
        list(adapter.stream({"messages": chat.messages}))
    with pytest.raises(AdapterError, match=todo):
        asyncio.run(adapter.acomplete({"messages": chat.messages}))


def test_an_empty_address_is_none() -> None:
    with pytest.raises(AdapterError, match="base_url is empty"):
        VllmAdapter("")


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


def test_an_edit_ahead_of_a_session_that_is_not_there(adapter: VllmAdapter) -> None:
    request = {"messages": [{"role": "user", "content": "hi"}]}
    with pytest.raises(UnknownSession):
        adapter.edit_ahead(request, Commit(session="nobody", base_version=1, version=2))


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


def test_halves_of_surrogate_pairs_are_sent_as_something_readable(
    fake: FakeVllm, adapter: VllmAdapter
) -> None:
    chat = talk(adapter)
    chat.say("half \ud83d, whole \U0001f600")
    assert chat.turn().reason is Reason.ASKED
    assert chat.turn("Go on.").removed == 0
    sent = fake.requests[-1][1]["messages"][4]["content"]
    assert sent == "half \ufffd, whole \U0001f600"
