"""The contract of adapters, and what it costs, kept by a real vLLM server with the connector."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from vllm_server import BLOCK, Server

from leyline_adapters.vllm.adapter import VllmAdapter
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import AdapterError, ContextOverflow
from leyline_agent.receipt import Reason
from leyline_agent.testing.conformance import AdapterConformance
from leyline_agent.testing.talk import Talk, long_text

OPTIONS: dict[str, Any] = {"temperature": 0, "max_tokens": 6}


class TestVllm(AdapterConformance):
    """The server of this folder's fixture."""

    block = BLOCK
    exact = False  # a prompt in one pass or in two is rounded otherwise, in bfloat16

    @pytest.fixture(autouse=True)
    def _url(self, server: Server) -> None:
        self.url = server.url

    def open(self, tenant: str = "") -> VllmAdapter:
        return VllmAdapter(self.url, tenant=tenant, attempts=1)


@pytest.fixture
def adapter(server: Server) -> Any:
    with VllmAdapter(server.url, attempts=1) as made:
        yield made


def talk(adapter: VllmAdapter, seed: int, words: int = 300) -> Talk:
    made = Talk(adapter, OPTIONS)
    made.say(f"You help with task {seed}.", role="system")
    made.say("Tell what you see.")
    for number in range(3):
        made.say(long_text(words, 10 * seed + number), role=("assistant", "user")[number % 2])
    return made


def test_behind_an_edit_only_what_is_new_is_computed(adapter: VllmAdapter) -> None:
    chat = talk(adapter, 1)
    chat.turn()
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    assert receipt.reason is Reason.ASKED
    assert receipt.compute == receipt.inserted + receipt.appended
    assert receipt.reused_spliced > 500
    assert receipt.edits[0].microseconds > 0


def test_several_edits_of_one_turn(adapter: VllmAdapter) -> None:
    chat = talk(adapter, 2)
    chat.turn()
    chat.session.edit(chat.stub(2, Mode.AMORTIZE))
    chat.session.edit(chat.stub(3, Mode.REPAIR))
    receipt = chat.turn("Go on.")
    assert [edit.mode_used for edit in receipt.edits] == [Mode.AMORTIZE, Mode.REPAIR]
    assert receipt.recomputed > 0
    assert receipt.compute == receipt.recomputed + receipt.inserted + receipt.appended


def test_a_session_goes_on_behind_its_edits(adapter: VllmAdapter) -> None:
    chat = talk(adapter, 3)
    chat.turn()
    chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    third = chat.turn("And then?")
    assert third.compute == third.appended
    assert third.reused_spliced > 500
    fourth = chat.turn("And then?", edit=Edit(2, 3, (), Mode.FORGET))
    assert fourth.reused_spliced == 0
    fifth = chat.turn("And then?")
    assert fifth.compute == fifth.appended


def test_a_stream_has_its_receipt(adapter: VllmAdapter) -> None:
    chat = talk(adapter, 4)
    chat.turn(stream=True)
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE), stream=True)
    assert receipt.reason is Reason.ASKED
    assert receipt.reused_spliced > 500


def test_a_reply_that_a_stop_string_ends_is_held(adapter: VllmAdapter) -> None:
    chat = talk(adapter, 8)
    chat._options |= {"max_tokens": 40, "stop": ["a", "e", "i", "o"]}
    chat.turn()
    assert chat.answer["choices"][0]["stop_reason"]
    receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
    assert receipt.reason is Reason.ASKED
    assert receipt.reused_spliced > 500


def test_text_that_no_encoding_can_hold(adapter: VllmAdapter) -> None:
    chat = talk(adapter, 9, words=20)
    chat.say("half \ud83d")
    chat.turn()
    receipt = chat.turn("Go on.")
    assert receipt.compute == receipt.appended


def test_conversations_at_once_keep_apart(adapter: VllmAdapter) -> None:
    chats = [talk(adapter, seed, words=120) for seed in range(20, 24)]
    turns = [chat.begin() for chat in chats]

    async def together() -> list[dict[str, Any]]:
        return await asyncio.gather(*(adapter.acomplete(turn.request) for turn in turns))

    for chat, turn, answer in zip(chats, turns, asyncio.run(together()), strict=True):
        chat.finish(turn, answer)
    for chat in chats:
        receipt = chat.turn("Go on.", edit=chat.stub(2, Mode.AMORTIZE))
        assert receipt.reason is Reason.ASKED
        assert receipt.compute == receipt.inserted + receipt.appended


def test_what_the_server_refuses(server: Server, adapter: VllmAdapter) -> None:
    chat = talk(adapter, 5)
    chat.say(long_text(6000, 1))
    with pytest.raises(ContextOverflow, match="maximum context length"):
        chat.turn()
    with (
        VllmAdapter(server.url, model="other") as other,
        pytest.raises(AdapterError, match="does not exist"),
    ):
        talk(other, 6).turn()


def test_what_sessions_hold_is_given_up(server: Server, adapter: VllmAdapter) -> None:
    chat = talk(adapter, 7)
    for _ in range(5):
        chat.turn("Go on.")
    assert adapter.drop(chat.session.id)
    assert "Traceback" not in server.log()
